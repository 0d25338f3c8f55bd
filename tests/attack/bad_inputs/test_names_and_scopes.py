"""Names that no policy can have, and scopes that are none or somebody else's."""

import pytest

from tests.attack.bad_inputs.asking import GOOD, OWN, STORE, Bad, check, rows, world

pytestmark = pytest.mark.django_db


def policy(case, written, told, **more):
    form = {"name": written, "text": GOOD, **more}
    return Bad(f"policy: {case}", 422, told, f"{STORE}new/", form, kept=tuple(form))


def typed(name, kind, written, told):
    form = {"action": "add", "type": kind, "name": written, "add": "repository:octo-org/kept"}
    kept = ("name", "add") if written else ("add",)
    return Bad(f"scope: {name}", 422, told, f"{STORE}{{POLICY}}/attach/", form, kept=kept)


def key(name, written, told):
    form = {"action": "save", "add": written}
    return Bad(f"key: {name}", 422, told, f"{STORE}{{POLICY}}/attach/", form)


def glass(case, told, **changed):
    form = {"type": "repository", "name": "hello-world", "hours": "4", "reason": "an outage", **changed}
    kept = tuple(field for field in ("name", "hours", "reason") if form[field])
    return Bad(f"break glass: {case}", 422, told, f"{STORE}break-glass/", form, kept=kept)


def listed(case, page, form, told):
    return Bad(f"{page}: {case}", 422, told, f"{OWN}settings/{page}/", form, kept=tuple(form))


CASES = [
    policy("empty", "", "Enter a name for the policy."),
    policy("only blanks", "   ", "Enter a name for the policy."),
    policy("too long", "x" * 101, "The name is too long: 101 characters (maximum 100)."),
    policy("much too long", "x" * 201, "The name is too long: 201 characters (maximum 100)."),
    policy("taken", "ci", "The organization already has a policy named “ci”. Choose another name."),
    policy("taken in other letters", "CI", "The organization already has a policy named “ci”. Choose another name."),
    policy(
        "a slash",
        "a/b",
        "Start the name with a letter or digit, then use only letters, digits, spaces, dots, hyphens and underscores.",
    ),
    policy(
        "a line break",
        "a\nb",
        "Start the name with a letter or digit, then use only letters, digits, spaces, dots, hyphens and underscores.",
    ),
    policy(
        "an unseen letter",
        "a\u200bb",
        "Start the name with a letter or digit, then use only letters, digits, spaces, dots, hyphens and underscores.",
    ),
    policy(
        "a long description",
        "draft",
        "The description is too long: 2001 characters (maximum 500).",
        description="x" * 2001,
    ),
    typed("no type", "", "hello-world", "Choose a scope type first."),
    typed("an unknown type", "team", "hello-world", "Choose a scope type first."),
    typed("no name", "repository", "", "Enter the name of a repository, for example hello-world."),
    typed(
        "another organization's",
        "repository",
        "other-org/hello-world",
        "“other-org/hello-world” does not belong to octo-org. Enter a repository of octo-org.",
    ),
    typed(
        "a bad repository",
        "repository",
        "hello world",
        "“hello world” is not the name of a repository; use letters, digits, dots, - and _.",
    ),
    typed(
        "dots alone", "repository", "..", "“..” is not the name of a repository; use letters, digits, dots, - and _."
    ),
    typed(
        "no workflow",
        "workflow",
        "hello-world",
        "“hello-world” does not name a repository and a workflow. Enter both, for example hello-world/ci.yml.",
    ),
    typed(
        "no workflow file",
        "workflow",
        "hello-world/ci.txt",
        "“ci.txt” is not a valid workflow name. Enter a file name such as ci.yml.",
    ),
    typed(
        "a bad cluster",
        "cluster",
        "a b",
        "“a b” is not a valid cluster name. Use letters, digits, dots, hyphens and underscores, for example prod-k8s.",
    ),
    key(
        "no key",
        "nonsense",
        "“nonsense” is not a scope; it starts with workflow:, repository:, organization: or cluster:.",
    ),
    key(
        "no type that is known",
        "team:octo-org/a",
        "“team:octo-org/a” is not a scope; it starts with workflow:, repository:, organization: or cluster:.",
    ),
    key(
        "another organization's",
        "repository:other-org/hello-world",
        "other-org/hello-world does not belong to octo-org.",
    ),
    glass("no hours", "This field is required.", hours=""),
    glass("too many hours", "Ensure this value is less than or equal to 72.", hours="73"),
    glass("no reason", "This field is required.", reason=""),
    glass("no repository", "Enter the name of a repository, for example hello-world.", name=""),
    listed(
        "bad repository",
        "inventory",
        {"repository": "a b", "workflow": ""},
        "“a b” is not the name of a repository; use letters, digits, dots, - and _.",
    ),
    listed(
        "unknown",
        "members",
        {"username": "no such person", "role": "auditor"},
        "“no such person” is not a GitHub login. Enter one such as “octocat”.",
    ),
    listed(
        "no reason",
        "global-blocklist",
        {"kind": "domain", "endpoint": "x.example", "reason": ""},
        "This field is required.",
    ),
    listed("no name", "management-keys", {"name": " "}, "This field is required."),
]


@rows(CASES)
def test_it_is_told_what_is_wrong_with_it(bad):
    check(world(), bad)
