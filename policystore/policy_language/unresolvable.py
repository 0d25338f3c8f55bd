"""Hosts for which public DNS has no address, as far as their names show it.

In block mode the agent looks up every host that is listed by name in public DNS before the job starts. If one has no
address there, it stops enforcing for the whole job.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

# The special-use domain names that IANA registers, and those that RFC 6762 (appendix G) and Kubernetes use privately.
# Without .example, which documentation may use in any way.
_PRIVATE = (
    "internal",
    "invalid",
    "test",
    "local",
    "localhost",
    "onion",
    "alt",
    "home.arpa",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "svc",
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


@lru_cache(maxsize=50_000)
def why_unresolvable(host: str) -> str:
    """Why no public DNS server has an address for a host without `*`; empty where nothing in its name says so."""
    if len(host) > 253 or not _HOST.fullmatch(host):
        return "it is not a host name"
    if _is_address(host):
        return "it is an IP address"
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return "its last label is a number, as in an IP address"
    if "." not in host:
        return "it has no dot"
    private = next((name for name in _PRIVATE if host.lower().endswith(f".{name}")), "")
    return f"names below .{private} are not in public DNS" if private else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
