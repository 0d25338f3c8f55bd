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
        "Line 1, column 1 error The policy says nothing. Write at least egress-policy: audit or egress-policy: block.",
    ),
    text(
        "only a comment",
        "# nothing yet\n",
        "Line 1, column 1 error The policy says nothing. Write at least egress-policy: audit or egress-policy: block.",
    ),
    text(
        "a list",
        "- github.com:443\n",
        "Line 1, column 1 error A policy is a set of keys with values. Write keys and values, such as egress-policy: block; of a workflow, only what is below with:.",
    ),
    text(
        "a sentence",
        "allow github.com\n",
        "Line 1, column 1 error A policy is a set of keys with values. Write keys and values, such as egress-policy: block; of a workflow, only what is below with:.",
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
        "Line 1, column 16 error Aliases (*mode) are not allowed. Write the value out.",
    ),
    text(
        "a merge key",
        "<<: {egress-policy: block}\n",
        "Line 1, column 1 error Merge keys (<<) are not allowed. Write the keys out.",
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
        "Line 2, column 1 error A policy is one YAML document. Remove the --- line.",
    ),
    text(
        "a key twice",
        "egress-policy: audit\negress-policy: block\n",
        "Line 2, column 1 error The key egress-policy stands here a second time; the first is in line 1. Keep one of them.",
    ),
    text(
        "a list as key",
        "[egress-policy]: block\n",
        "Line 1, column 1 error A list or mapping cannot be a key here. Write a word before the colon.",
    ),
    text(
        "too deep",
        "[" * 5_000 + "\n",
        "Line 1, column 65 error The text nests deeper than 8 levels. A policy needs three.",
    ),
    text(
        "too large",
        "# " + "x" * 70_000 + "\n",
        "Line 1, column 1 error The text has 70,003 bytes; at most 65,536 fit. Split it.",
    ),
    text(
        "an escape",
        "egress-policy: \x1b[31mblock\n",
        "Line 1, column 16 error The character U+001B cannot be printed or hides what the text says. Remove it.",
    ),
    text(
        "a right-to-left mark",
        "allowed-endpoints: \u202egithub.com\n",
        "Line 1, column 20 error The character U+202E cannot be printed or hides what the text says. Remove it.",
    ),
    text(
        "another line break",
        "egress-policy: audit\u2028disable-sudo: true\n",
        "Line 1, column 21 error The character U+2028 is read as a line break by some programs and not by others. End lines with Enter.",
    ),
    text(
        "a byte order mark",
        "\ufeffegress-policy: block\n",
        "Line 1, column 1 error The character U+FEFF is a byte order mark. Save the text as UTF-8 without a byte order mark.",
    ),
    text(
        "an unknown key",
        "egress_policy: block\n",
        "Line 1, column 1 error egress_policy is no key of a policy. Did you mean egress-policy?",
    ),
    text(
        "the action's own block",
        "with:\n  egress-policy: block\n",
        "Line 1, column 1 error with is a key of a workflow, not of a policy. Paste only the lines below with:.",
    ),
    text(
        "an unknown mode",
        "egress-policy: blok\n",
        "Line 1, column 16 error blok is no egress policy. Did you mean block?",
    ),
    text(
        "a mode that YAML reads as true",
        "egress-policy: on\n",
        "Line 1, column 16 error YAML reads on as a switch (true or false). Write audit or block.",
    ),
    text(
        "a switch that is no switch",
        "disable-sudo: 'perhaps'\n",
        "Line 1, column 15 error perhaps is neither true nor false. Write true or false.",
    ),
    text(
        "lockdown without a mapping",
        "lockdown-mode: true\n",
        "Line 1, column 1 error lockdown-mode takes the keys enabled and detections. Write enabled: true and a list of detections below it.",
    ),
    text(
        "an unknown detection",
        "lockdown-mode:\n  enabled: true\n  detections: [Reverse-Shel]\n",
        "Line 3, column 16 error Reverse-Shel is no detection that lockdown mode knows. Did you mean Reverse-Shell?",
    ),
    text(
        "an unknown set",
        "egress-policy: block\nendpoint-sets: [nobody]\n",
        "Line 2, column 17 error There is no endpoint set named nobody. Create it under Endpoint Sets first.",
    ),
]


@rows(CASES)
def test_it_is_told_where_and_how_to_mend_it(bad):
    check(world(), bad)
