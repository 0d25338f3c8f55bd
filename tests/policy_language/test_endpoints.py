"""The agent's endpoint grammar and matching, by the answers that the agent itself gave."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language.endpoint_matcher import VENDOR_HOSTS, AllowList, Pattern, Verdict, parse_allowed
from tests import agent_rule

VECTORS = json.loads((Path(__file__).parent.parent / "contract" / "endpoint_vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["parseEndpoints"], ids=lambda vector: vector["in"])
def test_entries_are_read_as_the_agent_reads_them(vector):
    read = [
        {"domain": endpoint.domain, "key": endpoint.domain, "port": endpoint.port, "wildcard": endpoint.wildcard}
        for endpoint in parse_allowed(vector["in"])
    ]
    assert read == vector["out"]


@pytest.mark.parametrize(
    "vector", VECTORS["matchWildcardDomain"], ids=lambda vector: f"{vector['pattern']} {vector['target']}"
)
def test_wildcards_match_as_the_agent_matches_them(vector):
    assert Pattern.of(vector["pattern"]).matches(vector["target"]) is vector["match"]


@pytest.mark.parametrize(
    ("entries", "host", "port", "verdict"),
    [
        ("github.com:443", "github.com", 443, "allowed"),
        ("github.com:443", "github.com.", 443, "allowed"),
        ("github.com.:443", "github.com", 443, "allowed"),
        ("github.com:443", "github.com", 80, "blocked"),
        ("github.com:443", "api.github.com", 443, "blocked"),
        ("github.com:443 github.com:80", "github.com", 80, "allowed"),
        ("github.com:443 github.com:80", "github.com", 443, "allowed"),
        ("GitHub.com:443", "github.com", 443, "blocked"),
        ("a.com:abc", "a.com", 0, "blocked"),
        ("a.com:abc", "a.com", 443, "blocked"),
        # Wildcards.
        ("*.github.com:443", "api.github.com", 443, "allowed"),
        ("*.github.com:443", "github.com", 443, "blocked"),
        ("*:443", "anything.example", 443, "allowed"),
        ("github.*:443", "github.evil.com", 443, "allowed"),
        ("s3.*.amazonaws.com:443", "s3.amazonaws.com", 443, "allowed"),
        ("*.*.github.com:443", "evil.com", 443, "allowed"),
        ("**.github.com:443", "evil.com", 443, "allowed"),
        ("ec2.*.*.amazonaws.com:443", "ec2.us.evil.org", 443, "allowed"),
        ("a*b*c.com:443", "axb.com", 443, "blocked"),
        ("*:443", "metadata.google.internal", 443, "blocked"),
        ("*.internal:443", "metadata.google.internal", 443, "blocked"),
        ("*:0", "a.com", 443, "blocked"),
        # The first port of a wildcard counts.
        ("*.github.com:443 *.github.com:80", "api.github.com", 443, "allowed"),
        ("*.github.com:443 *.github.com:80", "api.github.com", 80, "blocked"),
        # No wildcard is tried for a host that is listed by name.
        ("mirror.octo.example:80 *.octo.example:443", "mirror.octo.example", 443, "blocked"),
        ("mirror.octo.example:80 *.octo.example:443", "mirror.octo.example", 80, "allowed"),
        ("mirror.octo.example:80 *.octo.example:443", "a.octo.example", 443, "allowed"),
        ("mirror.octo.example:abc *.octo.example:443", "mirror.octo.example", 443, "blocked"),
        ("x.actions.githubusercontent.com:80", "x.actions.githubusercontent.com", 443, "blocked"),
        ("*.github.com:80", "codeload.github.com", 80, "blocked"),
        # Wildcards with different ports.
        ("*.a.com:443 *.b.a.com:8080", "x.b.a.com", 443, "undetermined"),
        ("*.a.com:443 *.b.a.com:8080", "x.b.a.com", 8080, "undetermined"),
        ("*.a.com:443 *.b.a.com:8080", "x.b.a.com", 80, "blocked"),
        ("*.a.com:443 *.b.a.com:8080", "x.a.com", 443, "allowed"),
        ("*.a.com:443 *.b.a.com:443", "x.b.a.com", 443, "allowed"),
        ("*.a.com:443 *.b.a.com:8080 x.b.a.com:443", "x.b.a.com", 443, "allowed"),
        ("*:80", "x.actions.githubusercontent.com", 443, "undetermined"),
        # What the agent adds.
        ("", "codeload.github.com", 443, "allowed"),
        ("", "codeload.github.com", 80, "blocked"),
        ("codeload.github.com:22", "codeload.github.com", 443, "allowed"),
        ("codeload.github.com:22", "codeload.github.com", 22, "allowed"),
        ("", "x.actions.githubusercontent.com", 443, "allowed"),
        ("*.actions.githubusercontent.com:80", "x.actions.githubusercontent.com", 443, "blocked"),
        ("*.actions.githubusercontent.com:80", "x.actions.githubusercontent.com", 80, "allowed"),
        ("", "productionresultssa7.blob.core.windows.net", 443, "allowed"),
        ("", "example.com", 443, "blocked"),
        # Addresses that the firewall leaves open.
        ("", "10.1.2.3", 22, "allowed"),
        ("", "169.254.169.254", 80, "allowed"),
        ("", "2606:50c0::1", 443, "allowed"),
        ("", "140.82.121.3", 443, "blocked"),
        ("140.82.121.3:443", "140.82.121.3", 443, "allowed"),
    ],
)
def test_what_becomes_of_a_call(entries, host, port, verdict):
    assert AllowList.from_entries([entries]).verdict(host, port) == verdict
    assert agent_rule.verdict([entries], host, port) == verdict


def test_the_vendors_names_are_open_while_telemetry_is_on_and_no_other_name_of_the_store():
    for endpoint in VENDOR_HOSTS:
        assert AllowList.from_entries([]).verdict_of(endpoint) is Verdict.ALLOWED
        assert AllowList.from_entries([], telemetry=False).verdict_of(endpoint) is Verdict.BLOCKED
    assert AllowList.from_entries([]).verdict("store.example", 443) is Verdict.BLOCKED


@pytest.mark.parametrize(
    ("entry", "gives_up"),
    [
        ("github.com:443", False),
        ("github.com:0", False),
        ("github.com:abc", False),
        ("github.com:70000", True),
        ("github.com:-1", True),
        ("metadata.google.internal:80", True),
        ("internal:80", True),
        ("*.internal:443", False),
        ("*.github.com:70000", False),
        ("10.0.0.1:443", True),
        ("127.1", True),
        ("0x7f.0.0.1:80", True),
        ("a.0x1f", True),
        ("kubernetes.default.svc.cluster.local:443", True),
        ("x.invalid", True),
        ("x.test", True),
        ("nas.local", True),
        ("x.onion", True),
        ("npm", True),
        ("https://github.com", True),
        ("10.0.0.0/8", True),
        ("a.com,b.com", True),
        (":443", True),
        # .example is for documentation, and a label of hexadecimal digits is a name.
        ("mirror.octo.example:443", False),
        ("a.b.cafe:443", False),
        ("_http._tcp.azure.archive.ubuntu.com:443", False),
    ],
)
def test_which_entries_make_the_agent_stop_enforcing(entry, gives_up):
    assert bool(AllowList.from_entries(["a.com:443", entry]).gives_up) is gives_up


def test_a_name_is_resolved_on_whatever_port_it_is_listed():
    allowed = AllowList.from_entries(["a.com:abc", "*.b.com:0"])
    assert [allowed.resolves(host) for host in ("a.com", "x.b.com", "b.com", "codeload.github.com")] == [
        True,
        True,
        False,
        True,
    ]


@given(st.text())
def test_no_text_breaks_the_parser(text):
    parse_allowed(text)
