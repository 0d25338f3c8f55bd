"""Policy as code: a bundle's files, there and back, and every way in which files can be wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language.bundle import (
    BrokenBundle,
    Bundle,
    BundledException,
    BundledHost,
    BundledPolicy,
    BundledSet,
    BundledStaged,
    is_of_bundle,
    read_files,
    write,
)
from policystore.policy_language.scopes import Scope

MANIFEST = {"policystore.yaml": "format: 1\norganization: octo-org\n"}
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,20}[A-Za-z0-9]", fullmatch=True)
# What a description may hold; the guard refuses the rest.
PLAIN = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=60).map(str.strip)
SCOPES = st.one_of(
    st.just(Scope.for_organization("octo-org")),
    st.builds(lambda name: Scope.for_repository("octo-org", name), st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True)),
    st.builds(
        lambda name: Scope.for_workflow("octo-org", "r", f"{name}.yml"),
        st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20).filter(
            # What follows an @ is a ref.
            lambda name: "/" not in name and "@" not in name
        ),
    ),
)


LABELS = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)
WORDS = PLAIN.map(lambda text: " ".join(text.split())).filter(bool)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC))
ENDPOINTS = LABELS.map(lambda label: f"{label}.example:443")
EXCEPTIONS = st.builds(BundledException, ENDPOINTS, LABELS, WORDS, MOMENTS)
HOSTS = st.builds(BundledHost, LABELS.map(lambda label: f"{label}.example"), WORDS)
STAGED = st.builds(
    BundledStaged,
    st.text(min_size=1, max_size=40).filter(str.strip),
    st.lists(SCOPES, unique=True, max_size=3).map(sorted).map(tuple),
)


def some(elements, key):
    """None, or elements in order, each once."""
    listed = st.lists(elements, unique_by=key, max_size=3).map(lambda found: tuple(sorted(found, key=key)))
    return st.one_of(st.none(), listed)


@st.composite
def bundles(draw):
    names = draw(st.lists(NAMES, max_size=4, unique_by=str.lower))
    scopes = draw(st.lists(SCOPES, unique=True, max_size=6))
    policies = [
        BundledPolicy(
            name,
            draw(st.text(max_size=80)),
            draw(PLAIN),
            tuple(sorted(scope for place, scope in enumerate(scopes) if place % len(names) == number)),
            draw(some(EXCEPTIONS, lambda one: one.endpoint)),
            draw(st.one_of(st.none(), st.just(BundledStaged("")), STAGED)),
        )
        for number, name in enumerate(names)
    ]
    sets = [
        BundledSet(name, draw(st.text(max_size=40)), draw(PLAIN))
        for name in draw(st.lists(NAMES, max_size=2, unique_by=str.lower))
    ]

    def by_name(item):
        return item.name.lower()

    hosts = draw(some(HOSTS, lambda one: one.host))
    return Bundle("octo-org", tuple(sorted(policies, key=by_name)), tuple(sorted(sets, key=by_name)), hosts)


@given(bundles())
def test_what_was_written_is_read_back_the_same(bundle):
    files = write(bundle)
    assert read_files(files) == bundle
    assert all(is_of_bundle(path) for path in files)
    assert write(read_files(files)) == files


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "policystore.yaml:1:1: The file is missing. Point to a folder that export wrote."),
        (
            {"policystore.yaml": "organization: octo-org\nformat: 2\n"},
            "policystore.yaml:2:9: The format is '2'; this release reads 1.",
        ),
        ({"policystore.yaml": "format: 1\n"}, "policystore.yaml:1:1: organization has no text. Write one."),
        (
            {"policystore.yaml": "format: 1\norganization: a b\n"},
            "policystore.yaml:2:15: “a b” is not the name of an organization; use its login on GitHub.",
        ),
        (
            {"policystore.yaml": "format: 1\norganisation: octo-org\n"},
            "policystore.yaml:2:1: Unknown key “organisation”. Did you mean “organization”?",
        ),
        (
            {"policystore.yaml": "format: 1\norganization: octo-org\nnever-allow: []\n"},
            "policystore.yaml:3:1: Unknown key “never-allow”. Valid keys: format, organization.",
        ),
        ({"policystore.yaml": "- format\n"}, "policystore.yaml:1:1: The file is a set of keys with values."),
        ({"policystore.yaml": "a: &x 1\n"}, "policystore.yaml:1:4: Anchors (&x) are not allowed. Remove the anchor."),
        (
            {**MANIFEST, "policies/ci/about.yaml": "description: x\n"},
            "policies/ci/policy.yaml:1:1: The file is missing. Add it.",
        ),
        (
            {**MANIFEST, "policies/ci/policy.yaml": "", "policies/CI/policy.yaml": ""},
            "policies/ci/policy.yaml:1:1: ci and CI are the same name; names compare without case. Keep one of them.",
        ),
        (
            {
                **MANIFEST,
                "policies/ci/policy.yaml": "",
                "policies/ci/about.yaml": "attached-to:\n  - repo:octo-org/x\n",
            },
            "policies/ci/about.yaml:2:5: “repo:octo-org/x” is not a scope; "
            "it starts with workflow:, repository:, organization: or cluster:.",
        ),
        (
            {
                **MANIFEST,
                "policies/ci/policy.yaml": "",
                "policies/ci/about.yaml": "attached-to: organization:octo-org\n",
            },
            "policies/ci/about.yaml:1:14: attached-to takes a list. Write each entry after a hyphen.",
        ),
        (
            {
                **MANIFEST,
                "policies/a/policy.yaml": "",
                "policies/a/about.yaml": "attached-to: ['organization:octo-org']\n",
                "policies/b/policy.yaml": "",
                "policies/b/about.yaml": "attached-to: ['organization:octo-org']\n",
            },
            "policies/b/about.yaml:1:1: organization:octo-org is attached to a too; a scope holds one policy. "
            "Take it from one of them.",
        ),
    ],
)
def test_a_broken_bundle_says_what_where_and_how_to_mend_it(files, told):
    with pytest.raises(BrokenBundle) as broken:
        read_files(files)
    assert told in str(broken.value).splitlines()


EXCEPTION = "exceptions:\n- endpoint: a.example\n  owner: ann\n  reason: x\n"


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        ("never-allow.yaml", "hosts:\n- host: a.example\n", ":2:3: reason has no text. Write one."),
        (
            "never-allow.yaml",
            "hosts:\n- a.example\n",
            ":2:3: An entry of hosts is a set of keys. Write host, reason, each on a line of its own below a hyphen.",
        ),
        (
            "never-allow.yaml",
            "hosts:\n- {host: a.example, reason: x}\n- {host: A.example, reason: y}\n",
            ":3:3: a.example is listed twice. Keep one of them.",
        ),
        (
            "policies/ci/exceptions.yaml",
            f"{EXCEPTION}  until: soon\n",
            ":5:10: “soon” is not a date and time."
            " Enter a day such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z.",
        ),
        (
            "policies/ci/exceptions.yaml",
            f"{EXCEPTION}  til: 2026-01-31\n",
            ":5:3: Unknown key “til”. Did you mean “until”?",
        ),
        (
            "policies/ci/canaries.yaml",
            "scopes: ['repository:octo-org/r']\n",
            ":1:1: There is no staged version that these scopes could get."
            " Put its text into staged.yaml, or remove the scopes.",
        ),
    ],
)
def test_a_file_that_may_be_missing_is_read_as_strictly(path, text, told):
    with pytest.raises(BrokenBundle) as broken:
        read_files({**MANIFEST, "policies/ci/policy.yaml": "", path: text})
    assert f"{path}{told}" in str(broken.value).splitlines()


def test_every_problem_is_told_at_once():
    files = {"policystore.yaml": "format: 2\norganization: a b\n", "policies/ci/about.yaml": "x: 1\n"}
    with pytest.raises(BrokenBundle) as broken:
        read_files(files)
    assert len(broken.value.problems) == 2 + 1


@pytest.mark.parametrize(
    "path", ["README.md", "policies/ci.yaml", "policies/ci/notes.yaml", ".git/config.yaml", "policies/a/b/policy.yaml"]
)
def test_other_files_are_no_part_of_a_bundle(path):
    assert not is_of_bundle(path)
    assert read_files({**MANIFEST}) == Bundle("octo-org")
