"""The registered domain of a host, by the Public Suffix List that the package carries: nothing is fetched.

Suffixes below which anyone gets a host of their own (blob.core.windows.net, github.io) count as public suffixes.
"""

from __future__ import annotations

import tldextract

_EXTRACT = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


def registered_domain(host: str) -> str:
    """The domain that the host's owner registered; empty for an address and for a bare public suffix."""
    return _EXTRACT(host).top_domain_under_public_suffix
