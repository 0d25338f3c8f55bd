"""Wildcards for hosts that share a suffix, never broader than one owner's domain."""

import pytest
import tldextract
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language.document import check
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.wildcard_suggestions import wildcards

EXTRACT = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


@pytest.mark.parametrize(
    ("endpoints", "suggested"),
    [
        ([], []),
        (["a.example.com:443", "b.example.com:443"], []),
        (["a.example.com:443", "b.example.com:443", "c.example.com:443"], ["*.example.com:443"]),
        (["a.example.com:443", "b.example.com:443", "example.com:443"], []),
        (["a.example.com:443", "b.example.com:80", "c.example.com:8443"], []),
        (["a.x.example.com:443", "b.x.example.com:443", "c.x.example.com:443"], ["*.x.example.com:443"]),
        (["a.x.example.com:443", "b.y.example.com:443", "c.z.example.com:443"], ["*.example.com:443"]),
        # Anybody can have a host below these, and below a country's second level.
        (["a.blob.core.windows.net:443", "b.blob.core.windows.net:443", "c.blob.core.windows.net:443"], []),
        (["a.github.io:443", "b.github.io:443", "c.github.io:443"], []),
        (["a.co.uk:443", "b.co.uk:443", "c.co.uk:443"], []),
        (["a.s3.amazonaws.com:443", "b.s3.amazonaws.com:443", "c.s3.amazonaws.com:443"], []),
        (["192.0.2.1:443", "192.0.2.2:443", "192.0.2.3:443"], []),
        (["*.example.com:443", "a.example.com:443", "b.example.com:443"], []),
        (["a.localhost:443", "b.localhost:443", "c.localhost:443"], []),
    ],
)
def test_what_is_suggested(endpoints, suggested):
    assert [suggestion.wildcard for suggestion in wildcards(endpoints)] == suggested


LABELS = st.sampled_from(["a", "b", "c", "cdn", "api", "eu-1"])
DOMAINS = st.sampled_from(["example.com", "example.co.uk", "github.io", "blob.core.windows.net", "com", "x.github.io"])
HOSTS = st.builds(lambda labels, domain: ".".join([*labels, domain]), st.lists(LABELS, min_size=1, max_size=3), DOMAINS)
ENDPOINTS = st.lists(st.builds(lambda host, port: f"{host}:{port}", HOSTS, st.sampled_from([80, 443])), max_size=30)


@given(ENDPOINTS)
def test_a_suggestion_covers_what_it_says_and_spans_one_owner(endpoints):
    for suggestion in wildcards(endpoints):
        allowed = AllowList.from_entries([suggestion.wildcard])
        for endpoint in suggestion.covers:
            host, _, port = endpoint.rpartition(":")
            assert allowed.verdict(host, int(port)) is Verdict.ALLOWED
        owners = {EXTRACT(endpoint.rpartition(":")[0]).top_domain_under_public_suffix for endpoint in suggestion.covers}
        assert len(owners) == 1
        assert "" not in owners
        assert len(suggestion.covers) >= 3
        assert check(f"egress-policy: block\nallowed-endpoints: >\n  {suggestion.wildcard}\n").document
