"""What an organization never allows: which endpoints that speaks against, and what is left out of the list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language.document import check, combined
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.endpoint_sets import KnownSets, check_set
from policystore.policy_language.never_allow import NoHost, from_pairs, let_through_anyway, overlap, read_host
from tests import agent_rule

EVIL = from_pairs([("evil.example", "Stole keys."), ("*.pastes.example", "Anybody can write there")])


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("evil.example:443", "evil.example"),
        ("evil.example:8443", "evil.example"),
        ("a.evil.example:443", None),
        ("notevil.example:443", None),
        ("a.pastes.example:443", "*.pastes.example"),
        ("a.b.pastes.example:80", "*.pastes.example"),
        ("pastes.example:443", None),
        ("*.evil.example:443", None),
        ("*.example:443", "evil.example"),
        ("*:443", "evil.example"),
        ("*.pastes.example:443", "*.pastes.example"),
        ("x*.pastes.example:443", "*.pastes.example"),
        ("*.a.pastes.example:443", "*.pastes.example"),
        ("ev*:443", "evil.example"),
        ("ev*.com:443", None),
        ("github.com:443", None),
        ("evil.example.:443", "evil.example"),
        ("*.*.github.com:443", "evil.example"),
        ("**.github.com:443", "evil.example"),
        ("evil.*.example:443", "evil.example"),
        ("evil.ex*il.example:443", "evil.example"),
        ("evil.*:443", "evil.example"),
        ("github.*:443", "*.pastes.example"),
        ("x.pastes.*:443", "*.pastes.example"),
        ("ev*evil.other:443", None),
    ],
)
def test_an_endpoint_is_refused_when_it_lets_a_host_through(endpoint, host):
    refused = EVIL.refusing(endpoint)
    assert (refused.host if refused else None) == host


@given(st.data())
def test_a_list_without_what_is_refused_lets_no_refused_host_through(data):
    labels = st.sampled_from(["a", "b", "evil"])
    host = st.lists(labels, min_size=2, max_size=4).map(".".join)
    pattern = st.tuples(st.sampled_from(["", "a", "ev", "evil."]), st.sampled_from(["", ".b", ".evil", ".a.b"]))
    entries = data.draw(st.lists(st.one_of(host, pattern.map("*".join)), max_size=8))
    refused = data.draw(st.lists(st.one_of(host, host.map("*.{}".format)), min_size=1, max_size=3))
    called = data.draw(host)
    never = from_pairs((name, "reason") for name in refused)
    kept = [f"{entry}:443" for entry in entries if never.refusing(f"{entry}:443") is None]
    if any(_means(name, called) for name in refused):
        assert AllowList.from_entries(kept).verdict(called, 443) is Verdict.BLOCKED


def _means(pattern, host):
    return agent_rule.matches(f"{pattern}.", f"{host}.") if "*" in pattern else pattern == host


@given(*[st.text(alphabet="ab.*", max_size=6)] * 2, st.text(alphabet="ab.", max_size=8))
def test_what_two_patterns_have_in_common_is_no_matter_of_their_order(one, other, host):
    assert overlap(one, other) == overlap(other, one)
    if _means(one, host) and _means(other, host):
        assert overlap(one, other)


@pytest.mark.parametrize("written", ["evil.example", " EVIL.example. ", "*.evil.example", "a_b.evil-x.example"])
def test_a_host_is_kept_in_lower_case(written):
    assert read_host(written) == written.strip().rstrip(".").lower()


@pytest.mark.parametrize(
    "written",
    ["", "evil", "*", "*.c", "evil.example:443", "https://evil.example", "a b.example", "é.example", "*evil.example"],
)
def test_what_is_no_host_is_refused(written):
    with pytest.raises(NoHost):
        read_host(written)


def test_what_the_agent_lets_through_anyway_is_told():
    assert let_through_anyway("codeload.github.com") == ("codeload.github.com:443",)
    assert let_through_anyway("*.blob.core.windows.net") == ("productionresultssa*.blob.core.windows.net:443",)
    assert let_through_anyway("evil.example") == ()


def test_a_policy_that_lists_what_is_never_allowed_is_told_where_and_why():
    text = "egress-policy: audit\nallowed-endpoints: >\n  github.com\n  evil.example\n  *.example\n"
    first, second = check(text, never_allow=EVIL).errors
    assert (first.line, first.column, first.code) == (4, 3, "never-allowed")
    assert first.message == "“evil.example” is never allowed in this organization: Stole keys."
    assert (second.line, second.column) == (5, 3)
    assert second.message == (
        "“*.example” matches “evil.example”, which is never allowed in this organization: Stole keys."
    )
    assert second.hint == "List the hosts that you need instead."


def test_a_set_that_lists_it_is_an_error_there_and_a_warning_where_it_is_included():
    assert [problem.code for problem in check_set("a.com\nevil.example\n", never_allow=EVIL).problems] == [
        "never-allowed"
    ]
    sets = KnownSets({"old": ("evil.example:443", "x.pastes.example:443")})
    checked = check("egress-policy: block\nendpoint-sets: old\n", sets=sets, never_allow=EVIL)
    (problem,) = checked.problems
    assert (problem.severity, problem.line, problem.code) == ("warning", 2, "never-allowed-in-set")
    assert "“evil.example:443” and 1 more" in problem.message
    assert checked.document is not None


def test_what_is_never_allowed_is_left_out():
    document = check("egress-policy: audit\nallowed-endpoints: a.com evil.example\nendpoint-sets: old\n").document
    made = combined(document, {"old": ("x.pastes.example:443", "b.com:443", "evil.example:443")}, EVIL)
    assert made.endpoints == ("a.com:443", "b.com:443")
    assert made.left_out == ("evil.example:443", "x.pastes.example:443")
