"""Endpoint sets in pure form: their texts, their names in a policy, and the one list that runners get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language import editor
from policystore.policy_language.document import check, combined
from policystore.policy_language.endpoint_sets import KnownSets, check_set, names_in

SETS = KnownSets({"npm": ("registry.octo1.org:443",), "github": ("github.com:443", "api.github.com:443")}, ("npm",))


def problems_of(checked):
    return [(problem.line, problem.column, problem.code) for problem in checked.problems]


@pytest.mark.parametrize(
    "text",
    [
        "github.com\nAPI.github.com:443\n",
        "# ours\ngithub.com:443   # the site\n\n  api.github.com:443",
        "github.com:443 api.github.com:443",
        "- github.com:443\n- 'api.github.com'\n",
        "# ours\n- github.com:443 # the site\n- api.github.com:443\n",
        "[github.com:443, api.github.com:443]\n",
        "github.com:443\r\napi.github.com:443\r\n",
    ],
)
def test_a_set_is_lines_of_endpoints_or_a_yaml_list(text):
    checked = check_set(text)
    assert checked.endpoints == ("github.com:443", "api.github.com:443"), checked.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", (1, 1, "empty-set")),
        ("# nothing\n", (1, 1, "empty-set")),
        ("[]\n", (1, 1, "empty-set")),
        ("github.com:443\nhttps://x.com/\n", (2, 1, "endpoint-scheme")),
        ("allowed-endpoints: >\n  github.com:443\n", (1, 1, "key-in-set")),
        ("- a: b\n", (1, 3, "endpoint-space")),
        ("- [a]\n", (1, 3, "wrong-type")),
        ("- &x github.com\n", (1, 3, "anchor")),
        ("github.com:443\nx\u202ey.com\n", (2, 2, "unprintable-character")),
        ("# " + "x" * 70_000, (1, 1, "too-large")),
        ("\n".join(f"h{number}.example.com" for number in range(2001)), (2001, 1, "too-many-endpoints")),
    ],
)
def test_each_error_of_a_set_is_told_at_its_place(text, problem):
    checked = check_set(text)
    assert problem in problems_of(checked)
    assert checked.endpoints is None


def test_what_is_listed_twice_counts_once_and_is_told():
    checked = check_set("github.com\n*.x.com:443\ngithub.com:443\n*.x.com:8443\n")
    assert checked.endpoints == ("github.com:443", "*.x.com:443", "*.x.com:8443")
    assert [code for _, _, code in problems_of(checked)] == [
        "duplicate-endpoint",
        "unusual-port",
        "wildcard-second-port",
    ]


def test_what_stands_below_hundreds_of_doubts_is_read_all_the_same():
    endpoints = [f"h{number}.example.com:8443" for number in range(300)]
    assert check_set("\n".join(endpoints)).endpoints == tuple(endpoints)


@given(st.text())
def test_no_text_breaks_the_reading_of_a_set(text):
    checked = check_set(text)
    assert (checked.endpoints is None) == any(problem.severity == "error" for problem in checked.problems)


@pytest.mark.parametrize(
    "written",
    [
        "endpoint-sets: [npm, github]",
        "endpoint-sets:\n  - npm # packages\n  - GitHub\n",
        "endpoint-sets: npm github",
        "endpoint-sets: >\n  npm\n  # ours\n  github\n",
        "endpoint-sets: 'npm github'",
        "endpoint-sets: npm GitHub NPM",
    ],
)
def test_names_of_sets_are_read_however_they_are_written(written):
    document = check(f"egress-policy: block\n{written}\n", sets=SETS).document
    assert [name.lower() for name in document.endpoint_sets] == ["npm", "github"]
    assert document.allowed_endpoints == ()


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("endpoint-sets: nmp", (1, 16, "unknown-endpoint-set")),
        ("endpoint-sets:\n  - npm\n  - other\n", (3, 5, "unknown-endpoint-set")),
        ("endpoint-sets: on", (1, 16, "surprising-value")),
        ("endpoint-sets: [1.0]", (1, 17, "surprising-value")),
        ("endpoint-sets: {npm: github}", (1, 16, "wrong-type")),
        ("endpoint-sets: [[npm]]", (1, 17, "wrong-type")),
        ("endpoint-sets: ['']", (1, 17, "missing-value")),
        ("endpoint-sets:", (1, 15, "missing-value")),
        ("endpoint-sets: " + " ".join(f"s{number}" for number in range(51)), (1, 16, "too-many-endpoint-sets")),
    ],
)
def test_each_error_in_names_is_told_at_its_place(written, problem):
    checked = check(f"{written}\n", sets=SETS)
    assert problem in problems_of(checked)
    assert checked.document is None


def test_the_nearest_set_is_proposed_for_an_unknown_name():
    (problem,) = check("egress-policy: block\nendpoint-sets: nmp\n", sets=SETS).problems
    assert (problem.message, problem.hint) == ("There is no endpoint set named “nmp”.", "Did you mean “npm”?")


def test_a_policy_that_blocks_with_a_set_alone_is_no_doubt():
    assert check("egress-policy: block\nendpoint-sets: npm\n", sets=SETS).problems == ()
    checked = check("endpoint-sets: npm\n", sets=SETS)
    assert (problems_of(checked), checked.document) == ([(1, 1, "no-egress-policy")], None)


def test_a_stored_set_that_no_policy_may_list_is_an_error_where_it_is_included():
    sets = KnownSets({"old": ("a.com:443", "*.*.github.com:443"), "lan": ("nas.local:443",)})
    (problem,) = check("egress-policy: audit\nendpoint-sets: old\n", sets=sets).errors
    assert (problem.line, problem.column, problem.code) == (2, 16, "broken-set")
    assert "“*.*.github.com:443” has more than one *" in problem.message
    assert check("egress-policy: audit\nendpoint-sets: lan\n", sets=sets).problems == ()
    (problem,) = check("egress-policy: block\nendpoint-sets: lan\n", sets=sets).problems
    assert (problem.severity, problem.line, problem.code) == ("error", 2, "ends-enforcement")
    assert problem.message.startswith("In the endpoint set “lan”: In block mode, “nas.local:443” makes the agent stop")


def test_a_set_and_a_policy_that_contradict_each_other_are_told_on_both_lines():
    sets = KnownSets({"octo": ("*.octo.example:443",)})
    text = "egress-policy: block\nallowed-endpoints: mirror.octo.example:80\nendpoint-sets: octo\n"
    hidden = [problem for problem in check(text, sets=sets).problems if problem.code == "hidden-wildcard"]
    assert [(problem.line, problem.column) for problem in hidden] == [(2, 20), (3, 16)]
    assert hidden[1].message.startswith("In the endpoint set “octo”: “*.octo.example:443” does not apply to")
    told = problems_of(check_set("*.octo.example:443\nmirror.octo.example:80\n"))
    assert {(1, 1, "hidden-wildcard"), (2, 1, "hidden-wildcard")} <= set(told)


@pytest.mark.parametrize("entry", ["*.*.github.com", "metadata.google.internal:80", "10.0.0.1", "127.1:80", "npm"])
def test_a_set_lists_nothing_that_a_policy_in_block_mode_may_not_list(entry):
    assert check_set(f"github.com\n{entry}\n").endpoints is None


def test_a_wildcard_that_a_set_lists_with_another_port_is_told():
    sets = KnownSets({"cloud": ("*.x.com:8443",)})
    checked = check("egress-policy: block\nallowed-endpoints: '*.x.com'\nendpoint-sets: cloud\n", sets=sets)
    assert problems_of(checked) == [(3, 16, "wildcard-second-port")]


def test_a_policy_and_its_sets_together_list_no_more_than_fits():
    sets = KnownSets({"big": tuple(f"h{number}.example.com:443" for number in range(2000))})
    text = "egress-policy: block\nallowed-endpoints: {} other.example.com\nendpoint-sets: big\n"
    assert check(text.format("h0.example.com").replace(" other.example.com", ""), sets=sets).document is not None
    assert problems_of(check(text.format("h0.example.com"), sets=sets)) == [(3, 1, "too-many-endpoints")]


def test_own_endpoints_come_first_then_those_of_the_sets_each_once():
    text = "egress-policy: block\nallowed-endpoints: b.com api.github.com\nendpoint-sets: [GitHub, npm]\n"
    assert combined(check(text).document, SETS.endpoints).endpoints == (
        "b.com:443",
        "api.github.com:443",
        "github.com:443",
        "registry.octo1.org:443",
    )


WRITTEN = "egress-policy: block\nendpoint-sets:\n  - npm  # packages\n  # source\n  - github\ndisable-sudo: true\n"


def test_another_key_changes_and_the_sets_stay_as_written():
    changed = editor.set_values(WRITTEN, {"egress-policy": "audit", "allowed-endpoints": ["a.com:443"]})
    assert "endpoint-sets:\n  - npm  # packages\n  # source\n  - github\n" in changed


def test_a_set_is_included_after_the_others_which_keep_their_comments():
    assert editor.include_set(WRITTEN, "pypi") == WRITTEN.replace("  - github\n", "  - github\n  - pypi\n")
    assert editor.include_set(WRITTEN, "GITHUB") == WRITTEN
    assert names_in(editor.include_set("egress-policy: block\n", "pypi")) == ["pypi"]
    assert names_in(editor.include_set("endpoint-sets: npm # why\negress-policy: block\n", "pypi")) == ["npm", "pypi"]
