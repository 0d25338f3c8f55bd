"""Scopes: their keys, their precedence, and how changes of them are told."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language.scopes import (
    Scope,
    ScopeType,
    Transition,
    candidate_keys,
    overlap,
    parse_job,
    parse_scope,
    summarize_counts,
    transitions,
)

WORKFLOW = Scope.for_workflow("Octo-Org", "Hello-World", "CI.yml")
REPOSITORY = Scope.for_repository("octo-org", "hello-world")
ORGANIZATION = Scope.for_organization("octo-org")
CLUSTER = Scope.for_cluster("octo-org", "Dev-K8s")


@pytest.mark.parametrize(
    ("scope", "key", "label"),
    [
        (WORKFLOW, "workflow:octo-org/hello-world/CI.yml", "octo-org/hello-world/CI.yml"),
        (REPOSITORY, "repository:octo-org/hello-world", "octo-org/hello-world"),
        (ORGANIZATION, "organization:octo-org", "octo-org"),
        (CLUSTER, "cluster:octo-org/Dev-K8s", "Dev-K8s"),
    ],
)
def test_a_scope_is_one_text(scope, key, label):
    assert (scope.key, scope.label) == (key, label)
    assert Scope.from_key(key) == scope


def test_a_pasted_path_means_its_file():
    assert Scope.for_workflow("o", "r", ".github/workflows/ci.yml").workflow == "ci.yml"
    assert Scope.for_workflow("o", "r", "o/r/.github/workflows/ci.yaml").workflow == "ci.yaml"


def test_dynamic_workflows_have_a_scope():
    name = "octo-org/hello-world/dynamic/github-code-scanning/codeql"
    scope = Scope.for_workflow("octo-org", "hello-world", name)
    assert Scope.from_key(scope.key) == scope


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scope.for_workflow("o", "r", ""),
        lambda: Scope.for_workflow("o", "r", "ci"),
        lambda: Scope.for_workflow("o", "r", "a/b.yml"),
        lambda: Scope.for_workflow("o", "r", "a\nb.yml"),
        lambda: Scope.for_workflow("o", "r", "\0.yml"),
        lambda: Scope.for_repository("o", ""),
        lambda: Scope.for_repository("o", ".."),
        lambda: Scope.for_repository("o", "a/b"),
        lambda: Scope.for_repository("o", "a" * 101),
        lambda: Scope.for_repository("", "r"),
        lambda: Scope.for_organization("a/b"),
        lambda: Scope.for_organization("é"),
        lambda: Scope.for_cluster("o", ""),
        lambda: Scope.for_cluster("o", "a b"),
        lambda: Scope.from_key(""),
        lambda: Scope.from_key("planet:earth"),
        lambda: Scope.from_key("workflow:o/r"),
        lambda: Scope.from_key("organization:o/r"),
        lambda: Scope.for_workflow("o", "r", "a" * 101 + "/r/dynamic/codeql"),
        lambda: Scope.for_workflow("o", "r", "o/r/dynamic/" + "c" * 301),
    ],
)
def test_what_names_nothing_is_refused_with_a_sentence(make):
    with pytest.raises(ValueError, match=r"(is not|is a workflow of|Enter the name of|does not) .*\."):
        make()


def test_candidates_come_most_specific_first():
    assert candidate_keys("Octo-Org", "Hello-World", "ci.yml", "dev-k8s") == (
        "workflow:octo-org/hello-world/ci.yml",
        "repository:octo-org/hello-world",
        "organization:octo-org",
        "cluster:octo-org/dev-k8s",
    )


NAMES = (
    st.sampled_from(["", " ", "o", "Octo-Org", "a/b", "..", ".", "ci.yml", " ci.yaml ", "é", "a\nb.yml", "x" * 300])
    | st.text()
)


@given(NAMES, NAMES, NAMES, NAMES)
def test_candidates_are_the_keys_of_the_scopes(owner, repository, workflow, cluster):
    def key(make, *parts):
        try:
            return make(*parts).key
        except ValueError:
            return ""

    assert candidate_keys(owner, repository, workflow, cluster) == (
        key(Scope.for_workflow, owner, repository, workflow),
        key(Scope.for_repository, owner, repository),
        key(Scope.for_organization, owner),
        key(Scope.for_cluster, owner, cluster),
    )


def test_the_most_specific_key_is_the_last_by_the_alphabet():
    """The fetch's statement sorts by it."""
    keys = candidate_keys("octo-org", "hello-world", "ci.yml", "dev-k8s")
    assert list(keys) == sorted(keys, reverse=True)


def test_what_the_runner_did_not_say_is_nowhere():
    assert candidate_keys("o", "r", "", "")[0] == ""
    assert candidate_keys("o", "r", "", "")[3] == ""


@given(st.text(), st.text(), st.text(), st.text())
def test_candidates_never_raise_and_name_only_scopes_of_their_own_type(owner, repository, workflow, cluster):
    for kind, key in zip(ScopeType, candidate_keys(owner, repository, workflow, cluster), strict=True):
        assert key == "" or Scope.from_key(key).type == kind


names = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)


@given(names, names, names)
def test_every_scope_comes_back_from_its_key(owner, repository, name):
    for scope in (
        Scope.for_workflow(f"a{owner}", repository, f"{name}.yml"),
        Scope.for_repository(f"a{owner}", repository),
        Scope.for_organization(f"a{owner}"),
        Scope.for_cluster(f"a{owner}", f"a{name}"),
    ):
        assert Scope.from_key(scope.key) == scope


@pytest.mark.parametrize(
    ("scopes", "words"),
    [
        ([], "Not attached"),
        ([ORGANIZATION], "Organization"),
        ([REPOSITORY], "1 repository"),
        ([REPOSITORY, Scope.for_repository("o", "b")], "2 repositories"),
        ([WORKFLOW, CLUSTER, ORGANIZATION, REPOSITORY], "Organization, 1 repository, 1 workflow, 1 cluster"),
    ],
)
def test_scopes_are_summed_up_in_words(scopes, words):
    assert summarize_counts(Counter(scope.type for scope in scopes)) == words


@pytest.mark.parametrize(
    ("removed", "added", "told"),
    [
        ([], [WORKFLOW], []),
        ([WORKFLOW], [REPOSITORY], [("octo-org/hello-world", "specific workflows", "entire repo")]),
        ([REPOSITORY], [WORKFLOW], [("octo-org/hello-world", "entire repo", "specific workflows")]),
        ([REPOSITORY], [ORGANIZATION], [("octo-org", "specific repositories", "entire organization")]),
        ([ORGANIZATION], [REPOSITORY], [("octo-org", "entire organization", "specific repositories")]),
        ([WORKFLOW], [Scope.for_repository("octo-org", "other")], []),
    ],
)
def test_widening_and_narrowing_is_told(removed, added, told):
    assert transitions(removed, added) == [Transition(*words) for words in told]


OTHER_CLUSTER = Scope.for_cluster("octo-org", "other")


@pytest.mark.parametrize(
    ("one", "other", "shares"),
    [
        (ORGANIZATION, WORKFLOW, True),
        (REPOSITORY, WORKFLOW, True),
        (REPOSITORY, REPOSITORY, True),
        (REPOSITORY, Scope.for_workflow("octo-org", "other", "CI.yml"), False),
        (WORKFLOW, Scope.for_workflow("octo-org", "hello-world", "ci.yml"), False),
        (CLUSTER, REPOSITORY, True),
        (CLUSTER, ORGANIZATION, True),
        (CLUSTER, CLUSTER, True),
        (CLUSTER, OTHER_CLUSTER, False),
        (ORGANIZATION, Scope.for_repository("other", "hello-world"), False),
        (CLUSTER, Scope.for_repository("other", "hello-world"), False),
    ],
)
def test_scopes_overlap_where_a_job_can_be_in_both(one, other, shares):
    assert overlap(one, other) is overlap(other, one) is shares


def test_a_scope_is_written_as_a_query_string():
    assert Scope.for_workflow("o", "r", "my build & test.yml").query == "repository=r&workflow=my+build+%26+test.yml"
    assert (ORGANIZATION.query, CLUSTER.query) == ("", "cluster=Dev-K8s")


NAME = "octo-org/hello-world"
FILE = f"workflow:{NAME}/ci.yml"
CODEQL = f"workflow:{NAME}/{NAME}/dynamic/github-code-scanning/codeql"


@pytest.mark.parametrize(
    ("scope_type", "text", "key"),
    [
        ("workflow", "hello-world/ci.yml", FILE),
        ("workflow", "Octo-Org/Hello-World/ci.yml", FILE),
        ("workflow", "hello-world/.github/workflows/ci.yml", FILE),
        ("workflow", "octo-org/hello-world/.github/workflows/ci.yml@refs/heads/main", FILE),
        ("workflow", "https://github.com/octo-org/hello-world/blob/main/.github/workflows/ci.yml", FILE),
        ("workflow", "https://github.com/Octo-Org/hello-world/blob/a/b/.github/workflows/ci.yml?plain=1#L3", FILE),
        ("workflow", "https://ghes.example:8443/octo-org/hello-world/actions/workflows/ci.yml", FILE),
        ("workflow", "github.com/octo-org/hello-world/edit/main/.github/workflows/ci.yml", FILE),
        ("workflow", " hello-world/dynamic/github-code-scanning/codeql ", CODEQL),
        ("workflow", "Octo-Org/Hello-World/dynamic/github-code-scanning/codeql@refs/heads/main", CODEQL),
        ("workflow", "https://github.com/octo-org/hello-world/actions/workflows/github-code-scanning/codeql", CODEQL),
        ("workflow", "dynamic/ci.yml", "workflow:octo-org/dynamic/ci.yml"),
        ("workflow", "octo-org/ci.yml", "workflow:octo-org/octo-org/ci.yml"),
        (
            "workflow",
            "https://github.com/octo-org/r/blob/main/.github/workflows/a%20b.yml",
            "workflow:octo-org/r/a b.yml",
        ),
        ("repository", "Hello-World/", f"repository:{NAME}"),
        ("repository", "octo-org/hello-world", f"repository:{NAME}"),
        ("repository", "https://github.com/octo-org/Hello-World.git", f"repository:{NAME}"),
        ("repository", "https://ghes.example/octo-org/hello-world/tree/main/docs", f"repository:{NAME}"),
        ("organization", "", "organization:octo-org"),
        ("organization", "https://github.com/Octo-Org/", "organization:octo-org"),
        ("cluster", " prod-k8s ", "cluster:octo-org/prod-k8s"),
    ],
)
def test_a_scope_is_understood_however_github_writes_it(scope_type, text, key):
    assert parse_scope(scope_type, "Octo-Org", text).key == key


@pytest.mark.parametrize(
    ("scope_type", "text", "sentence"),
    [
        (
            "workflow",
            "https://github.com/acme/hello-world/blob/main/.github/workflows/ci.yml",
            "does not belong to octo",
        ),
        ("workflow", "acme/hello-world/ci.yml", "does not belong to octo-org"),
        ("workflow", "dynamic/github-code-scanning/codeql", "hello-world/dynamic/github-code-scanning/codeql"),
        ("workflow", "https://github.com/octo-org/hello-world", "does not name a repository and a workflow"),
        ("workflow", ".github/workflows/ci.yml", "does not name a repository and a workflow"),
        ("repository", "hello-world/.github/workflows/ci.yml", "Choose the scope type Workflow, or enter hello-world"),
        ("repository", "https://github.com/acme/hello-world", "does not belong to octo-org"),
        ("organization", "acme", "“acme” is not octo-org"),
        ("planet", "earth", "Choose a scope type first"),
    ],
)
def test_what_is_not_a_scope_of_the_organization_is_refused_with_the_way_out(scope_type, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_scope(scope_type, "octo-org", text)


@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("workflow:octo-org/hello-world/.github/workflows/ci.yml@refs/heads/main", FILE),
        ("workflow:https://github.com/octo-org/hello-world/blob/main/.github/workflows/ci.yml", FILE),
        ("workflow:octo-org/hello-world/dynamic/github-code-scanning/codeql", CODEQL),
        (CODEQL, CODEQL),
        ("repository:octo-org/Hello-World/", f"repository:{NAME}"),
        ("repository:https://github.com/octo-org/hello-world", f"repository:{NAME}"),
    ],
)
def test_a_key_may_be_entered_as_github_writes_it(key, read):
    assert Scope.from_key(key).key == read


def test_a_dynamic_workflow_is_the_same_however_a_runner_writes_its_repository():
    sent = "Octo-Org/Hello-World/dynamic/github-code-scanning/codeql"
    assert candidate_keys("Octo-Org", "Hello-World", sent, "")[0] == CODEQL


@pytest.mark.parametrize(
    ("repository", "workflow", "named"),
    [
        ("Hello-World/", "ci.yml", ("Hello-World", "ci.yml")),
        ("", "octo-org/hello-world/.github/workflows/ci.yml@refs/heads/main", ("hello-world", "ci.yml")),
        ("", "https://github.com/octo-org/hello-world/blob/main/.github/workflows/ci.yml", ("hello-world", "ci.yml")),
        ("https://github.com/octo-org/hello-world", "", ("hello-world", "")),
        ("hello-world", "hello-world/ci.yml", ("hello-world", "ci.yml")),
        ("hello-world", "dynamic/x/y", ("hello-world", "octo-org/hello-world/dynamic/x/y")),
        ("", "", ("", "")),
        ("a b", "nonsense", ("a b", "nonsense")),
    ],
)
def test_a_job_is_understood_however_it_is_entered(repository, workflow, named):
    assert parse_job("octo-org", repository, workflow) == named


def test_a_job_of_two_repositories_is_refused():
    with pytest.raises(ValueError, match="is a workflow of other, not of hello-world"):
        parse_job("octo-org", "hello-world", "other/ci.yml")
