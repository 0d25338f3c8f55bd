"""The agent's endpoint grammar and matching, by the answers that the agent itself gave."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.documents.endpoints import ALWAYS_ALLOWED, AllowList, matches_wildcard, parse_allowed

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
    assert matches_wildcard(vector["pattern"], vector["target"]) is vector["match"]


@pytest.mark.parametrize(
    ("entries", "host", "port", "allowed"),
    [
        (["github.com:443"], "github.com", 443, True),
        (["github.com:443"], "github.com.", 443, True),
        (["github.com:443"], "github.com", 80, False),
        (["github.com:443"], "api.github.com", 443, False),
        (["github.com:443", "github.com:80"], "github.com", 80, True),
        (["github.com:443", "github.com:80"], "github.com", 443, True),
        (["*.github.com:443", "*.github.com:80"], "api.github.com", 443, True),
        (["*.github.com:443", "*.github.com:80"], "api.github.com", 80, False),
        (["*.github.com:443"], "github.com", 443, False),
        (["*:443"], "anything.example", 443, True),
        (["a.com:abc"], "a.com", 0, True),
        (["a.com:abc"], "a.com", 443, False),
        (["GitHub.com:443"], "github.com", 443, False),
        ([], "codeload.github.com", 443, True),
        ([], "codeload.github.com", 80, False),
        ([], "x.actions.githubusercontent.com", 443, True),
        ([], "productionresultssa7.blob.core.windows.net", 443, True),
        ([], "example.com", 443, False),
    ],
)
def test_what_a_list_lets_through(entries, host, port, allowed):
    assert AllowList.from_entries(entries).allows(host, port) is allowed


def test_the_stores_own_hosts_are_open_while_telemetry_is_on():
    assert AllowList.from_entries([], telemetry_hosts=["store.example"]).allows("store.example", 443)
    assert not AllowList.from_entries([]).allows("store.example", 443)


hosts = st.from_regex(r"[a-c]{1,3}(\.[a-c]{1,2}){0,2}", fullmatch=True)
patterns = st.one_of(hosts, st.builds(lambda host: f"*.{host}", hosts), st.builds(lambda host: f"*{host}", hosts))
listed = st.lists(st.builds(lambda host, port: f"{host}:{port}", patterns, st.sampled_from([80, 443])), max_size=8)


@given(listed, hosts, st.sampled_from([80, 443]))
def test_a_list_decides_as_going_through_it_entry_by_entry_does(entries, host, port):
    seen = set()
    expected = False
    for endpoint in parse_allowed(" ".join([*entries, *ALWAYS_ALLOWED])):
        if endpoint.wildcard and endpoint.domain in seen:
            continue
        seen.add(endpoint.domain)
        matches = matches_wildcard(endpoint.domain, f"{host}.") if endpoint.wildcard else endpoint.domain == f"{host}."
        expected = expected or (matches and endpoint.port == port)
    assert AllowList.from_entries(entries).allows(host, port) is expected


@given(st.text())
def test_no_text_breaks_the_parser(text):
    parse_allowed(text)
