"""What browsers send that no page of ours made: uploads, fragments, forms that are stale, and forms sent twice."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.attack.bad_inputs.asking import GOOD, OWN, STORE, Bad, ask, check, everything, rows, told_by, world

pytestmark = pytest.mark.django_db
IMPORT = f"{OWN}baseline/import/"
HTMX = {"hx-request": "true"}


def uploaded(case, said, content, status=422):
    upload = SimpleUploadedFile("list.txt", content)
    form = {"source": "file", "show": "1", "name": "draft", "text": GOOD, "file": upload}
    return Bad(f"upload: {case}", status, said, IMPORT, form, kept=("name", "text"))


def fragment(case, status, said, path, form=None, method="POST", **more):
    return Bad(f"htmx: {case}", status, said, path, form or {}, method=method, headers=HTMX, **more)


def stale(case, status, said, path, form, **more):
    return Bad(f"stale: {case}", status, said, f"{STORE}{{POLICY}}/{path}", form, **more)


MINE = {"name": "ci", "description": "mine", "text": "egress-policy: audit\n"}
CASES = [
    uploaded("no text", "The file is not UTF-8 text.", b"\xff\xfe\x00"),
    uploaded("too large", "The file is too large (maximum 256 KiB).", b"a.example\n" * 30_000),
    uploaded(
        "no endpoints",
        "Line 2: “https://x.example/” has a scheme. Enter a host and a port only. Enter “x.example:443”.",
        b"github.com\nhttps://x.example/\n",
        status=200,
    ),
    Bad(
        "upload: no file",
        422,
        "Choose a file with one endpoint per line.",
        IMPORT,
        {"source": "file", "show": "1", "name": "draft", "text": GOOD},
        kept=("name", "text"),
    ),
    Bad(
        "upload: a form cut off",
        400,
        "The request is malformed, or its host name is not one of this store's",
        IMPORT,
        body=b"--x\r\nContent-Disposition: form-data",
        kind="multipart/form-data",
    ),
    Bad(
        "upload: another alphabet",
        400,
        "The request is malformed, or its host name is not one of this store's",
        IMPORT,
        body=b"name=x",
        kind="application/x-www-form-urlencoded; charset=utf-16",
    ),
    fragment(
        "a text that is broken",
        200,
        "Line 2, column 1 error This is not YAML: did not find expected ',' or ']'. Check indentation, colons and quotes.",
        f"{STORE}check/",
        {"text": "a: [b\n"},
    ),
    fragment(
        "no text",
        200,
        "Line 1, column 1 error The policy is empty. Enter at least egress-policy: audit or egress-policy: block.",
        f"{STORE}check/",
        {"text": ""},
    ),
    fragment(
        "a scope that is none",
        422,
        "“a b” is not the name of a repository; use letters, digits, dots, - and _.",
        f"{STORE}{{POLICY}}/attach/",
        {"action": "add", "type": "repository", "name": "a b"},
        kept=("name",),
    ),
    fragment(
        "a page of nowhere",
        404,
        "There is nothing at this address, or it is not yours to see.",
        f"{STORE}999999/",
        method="GET",
    ),
    fragment(
        "a number too large",
        404,
        "There is nothing at this address, or it is not yours to see.",
        f"{STORE}{10**30}/",
        method="GET",
    ),
    fragment("a cursor that is none", 200, "View policy", f"{STORE}?after=nonsense", method="GET"),
    fragment(
        "a type that is none",
        200,
        "Choose a scope type first.",
        f"{STORE}{{POLICY}}/attach/",
        {"type": "team", "name": "\0"},
    ),
    fragment(
        "versions that are none",
        422,
        "Enter a whole number.",
        f"{STORE}{{POLICY}}/versions/compare/?from=x&to=",
        method="GET",
    ),
    stale(
        "an older version",
        409,
        "Not saved. Policy Store saved version 1",
        "edit/",
        {**MINE, "version": "0"},
        kept=tuple(MINE),
    ),
    stale("no version", 409, "Not saved. Policy Store saved version 1", "edit/", MINE, kept=tuple(MINE)),
    stale(
        "a version that is none",
        422,
        "Not saved: the version that you started from is missing. Open the page again and save your text there.",
        "edit/",
        {**MINE, "version": "one"},
        kept=tuple(MINE),
    ),
    stale(
        "a staged version over another",
        409,
        "Not staged. Policy Store has staged another version in the meantime.",
        "staged/",
        {"text": "egress-policy: block\n", "version": "1", "event": "1"},
        kept=("text",),
    ),
    stale(
        "a scope that is held", 409, "Replace policies?", "attach/", {"action": "save", "add": "organization:octo-org"}
    ),
    stale(
        "another name to delete",
        422,
        "This is not the policy's name. Type ci to delete it.",
        "delete/",
        {"name": "cj"},
        kept=("name",),
    ),
]


@rows(CASES)
def test_it_is_told_what_is_wrong_with_it(bad):
    check(world(), bad)


def test_a_policy_that_was_deleted_meanwhile_keeps_what_was_written():
    there = world()
    assert there.client.post(f"{STORE}{there.policy.pk}/delete/", {"name": "ci"}).status_code == 302
    check(there, stale("gone", 409, "The policy was deleted after you opened it.", "edit/", MINE, kept=tuple(MINE)))


TWICE = {
    "a policy": (f"{STORE}new/", {"name": "draft", "text": GOOD}, 422, "already has a policy named “draft”"),
    "an edit": (f"{STORE}{{POLICY}}/edit/", {**MINE, "version": "1"}, 409, "Not saved."),
    "an end": (f"{STORE}{{POLICY}}/delete/", {"name": "ci"}, 404, "There is nothing at this address"),
    "a set": (
        f"{OWN}endpoint-sets/new/",
        {"name": "two", "text": "a.example\n"},
        422,
        "already has an endpoint set named “two”",
    ),
    "a key": (f"{OWN}settings/management-keys/", {"name": "two"}, 422, "A key named “two” already exists"),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_form_that_is_sent_twice_changes_once(case):
    there, (path, form, status, told) = world(), TWICE[case]
    twice = Bad(case, status, told, path, form)
    assert ask(there, twice).status_code in (200, 302)
    after = everything()
    answer = ask(there, twice)
    assert (answer.status_code, told in told_by(answer)) == (status, True), told_by(answer)
    assert everything() == after
