"""Texts of policies that are no policies: each is answered at its place, and stays in the editor as it was typed."""

import pytest

from tests.attack.bad_inputs.asking import STORE, Bad, check, rows, world

pytestmark = pytest.mark.django_db


def text(name, written, told, kept=("name", "text")):
    return Bad(name, 422, told, f"{STORE}new/", {"name": "draft", "text": written}, kept=kept)


CASES = [
    text(
        "empty",
        "",
        "Line 1, column 1 error The policy is empty. Enter at least egress-policy: audit or egress-policy: block.",
    ),
    text(
        "only a comment",
        "# nothing yet\n",
        "Line 1, column 1 error The policy is empty. Enter at least egress-policy: audit or egress-policy: block.",
    ),
    text(
        "a list",
        "- github.com:443\n",
        "Line 1, column 1 error A policy must consist of keys and values. Enter keys and values, for example egress-policy: block. Of a workflow, paste what is below with:.",
    ),
    text(
        "a sentence",
        "allow github.com\n",
        "Line 1, column 1 error A policy must consist of keys and values. Enter keys and values, for example egress-policy: block. Of a workflow, paste what is below with:.",
    ),
    text(
        "a tab",
        "egress-policy: block\nallowed-endpoints:\n\t- github.com\n",
        "Line 3, column 1 error This is not YAML: found character that cannot start any token. Check indentation, colons and quotes.",
    ),
    text(
        "an open quote",
        "egress-policy: 'block\n",
        "Line 2, column 1 error This is not YAML: found unexpected end of stream. Check indentation, colons and quotes.",
    ),
    text(
        "an open bracket",
        "allowed-endpoints: [github.com\n",
        "Line 2, column 1 error This is not YAML: did not find expected ',' or ']'. Check indentation, colons and quotes.",
    ),
    text(
        "two colons",
        "egress-policy: block: audit\n",
        "Line 1, column 21 error This is not YAML: mapping values are not allowed in this context. Check indentation, colons and quotes.",
    ),
    text(
        "an anchor",
        "egress-policy: &mode block\n",
        "Line 1, column 16 error Anchors (&mode) are not allowed. Remove the anchor.",
    ),
    text(
        "an alias",
        "egress-policy: *mode\n",
        'Line 1, column 16 error Aliases (*mode) are not allowed. To list a wildcard, put it in quotes: "*mode".',
    ),
    text(
        "a merge key",
        "<<: {egress-policy: block}\n",
        "Line 1, column 1 error Merge keys (<<) are not allowed. Enter the keys themselves.",
    ),
    text(
        "a tag",
        "egress-policy: !!python/name:os.system block\n",
        "Line 1, column 16 error Tags (tag:yaml.org,2002:python/name:os.system) are not allowed. Remove the tag.",
    ),
    text(
        "a directive",
        "%YAML 1.1\n---\negress-policy: block\n",
        "Line 1, column 1 error YAML directives (%) are not allowed. Remove the line.",
    ),
    text(
        "two documents",
        "egress-policy: audit\n---\negress-policy: block\n",
        "Line 2, column 1 error A policy must be a single YAML document. Remove the --- line.",
    ),
    text(
        "a key twice",
        "egress-policy: audit\negress-policy: block\n",
        "Line 2, column 1 error The key “egress-policy” is already set in line 1. Keep one of them.",
    ),
    text(
        "a list as key",
        "[egress-policy]: block\n",
        "Line 1, column 1 error A list or mapping cannot be a key here. Put a word before the colon.",
    ),
    text(
        "too deep",
        "[" * 5_000 + "\n",
        "Line 1, column 65 error The text is nested deeper than 8 levels. A policy needs three.",
    ),
    text(
        "too large",
        "# " + "x" * 70_000 + "\n",
        "Line 1, column 1 error The text is too long: 70,003 bytes (maximum 65,536). Split it.",
    ),
    text(
        "an escape",
        "egress-policy: \x1b[31mblock\n",
        "Line 1, column 16 error The character U+001B is invisible or cannot be printed. Remove it.",
    ),
    text(
        "a right-to-left mark",
        "allowed-endpoints: \u202egithub.com\n",
        "Line 1, column 20 error The character U+202E is invisible or cannot be printed. Remove it.",
    ),
    text(
        "another line break",
        "egress-policy: audit\u2028disable-sudo: true\n",
        "Line 1, column 21 error The character U+2028 is a line break to some programs and not to others. End lines with Enter.",
    ),
    text(
        "a byte order mark",
        "\ufeffegress-policy: block\n",
        "Line 1, column 1 error The character U+FEFF is a byte order mark. Save the text as UTF-8 without a byte order mark.",
    ),
    text(
        "an unknown key",
        "egress_policy: block\n",
        "Line 1, column 1 error Unknown key “egress_policy”. Did you mean “egress-policy”?",
    ),
    text(
        "the action's own block",
        "with:\n  egress-policy: block\n",
        "Line 1, column 1 error “with” is a key of a workflow, not of a policy. Paste only the lines below with:.",
    ),
    text(
        "an unknown mode",
        "egress-policy: blok\n",
        "Line 1, column 16 error “blok” is not a valid egress policy. Did you mean “block”?",
    ),
    text(
        "a mode that YAML reads as true",
        "egress-policy: on\n",
        "Line 1, column 16 error YAML reads “on” as a switch (true or false). Enter audit or block.",
    ),
    text(
        "a switch that is no switch",
        "disable-sudo: 'perhaps'\n",
        "Line 1, column 15 error “perhaps” is not true or false. Enter true or false.",
    ),
    text(
        "lockdown without a mapping",
        "lockdown-mode: true\n",
        "Line 1, column 1 error lockdown-mode must have the keys enabled and detections. Enter enabled: true and below it a list of detections.",
    ),
    text(
        "an unknown detection",
        "lockdown-mode:\n  enabled: true\n  detections: [Reverse-Shel]\n",
        "Line 3, column 16 error Unknown detection “Reverse-Shel”. Did you mean “Reverse-Shell”?",
    ),
    text(
        "an unknown set",
        "egress-policy: block\nendpoint-sets: [nobody]\n",
        "Line 2, column 17 error There is no endpoint set named “nobody”. Create it under Endpoint Sets first.",
    ),
]


@rows(CASES)
def test_it_is_told_where_and_how_to_mend_it(bad):
    check(world(), bad)
