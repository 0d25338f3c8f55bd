"""Hostile YAML is refused before anything is built from it."""

import time

import pytest

from policystore.policy_language.document import check
from policystore.policy_language.yaml_reader import OF_A_POLICY, read


def refusals(text):
    return read(text)[1]


MERGE_BOMB = "a: &a {x: 1}\n" + "".join(f"k{n}: &k{n}\n  <<: [{', '.join(['*a'] * 9)}]\n" for n in range(20))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("# " + "x" * OF_A_POLICY.bytes, "too-large"),
        ("é" * (OF_A_POLICY.bytes // 2 + 1), "too-large"),
        ("#\n" * 5_001, "too-many-lines"),
        ("[" + "a," * 5_000 + "]", "too-many-values"),
        ("[" * 28_000, "too-deep"),
        ("{" * 28_000, "too-deep"),
        ("[" * 9 + "]" * 9, "too-deep"),
        ("- " * 20_000, "too-deep"),
        ("\n".join(" " * n + "a:" for n in range(20)), "too-deep"),
        ("a: &x 1\n", "anchor"),
        ("a: *x\n", "alias"),
        (MERGE_BOMB, "anchor"),
        ("<<: {a: b}\n", "merge-key"),
        ("a: !!int ''\n", "tag"),
        ("a: !!python/object:os.system x\n", "tag"),
        ("a: ! x\n", "tag"),
        ("%YAML 1.1\n---\na: b\n", "directive"),
        ("%TAG ! tag:x,2000:\n---\na: b\n", "directive"),
        ("a: b\n---\nc: d\n", "several-documents"),
        ("a: b\na: c\n", "duplicate-key"),
        ("{a: b, a: c}\n", "duplicate-key"),
        ("l:\n  a: b\n  a: c\n", "duplicate-key"),
        ("[a]: b\n", "complex-key"),
        ("? {a: b}\n: c\n", "complex-key"),
        ("a: \0\n", "unprintable-character"),
        ("a: \x1b[31m\n", "unprintable-character"),
        ("a: \x7f\n", "unprintable-character"),
        ("a: \ud800\n", "unprintable-character"),
        ("a: \u202egithub.com\n", "unprintable-character"),
        ("a: b # \u200b\n", "unprintable-character"),
        ("a: b # \u061c\n", "unprintable-character"),
        ("a: b # \u00ad\n", "unprintable-character"),
        ("a: b # \u034f\n", "unprintable-character"),
        ("a: b # \u3164\n", "unprintable-character"),
        ("a: b # x\ufe0f\n", "unprintable-character"),
        ("a: b # \U000e0041\n", "unprintable-character"),
        ("a: b\x85c: d\n", "ambiguous-line-break"),
        ("a: b\u2028c: d\n", "ambiguous-line-break"),
        ("a: b\u2029c: d\n", "ambiguous-line-break"),
        ("a: b\rc: d\n", "ambiguous-line-break"),
        ("\ufeffa: b\n", "byte-order-mark"),
        ("a:\n\tb: c\n", "no-yaml"),
        ("a: 'b\n", "no-yaml"),
        ("a: b: c\n", "no-yaml"),
        ("a: [b\n", "no-yaml"),
        ("@a: b\n", "no-yaml"),
        ("a: `b`\n", "no-yaml"),
        ("a: |9x\n", "no-yaml"),
        ('a: "\\xZZ"\n', "no-yaml"),
        ("- *.x.com:443\n", "unquoted-wildcard"),
        ("a: [${{ x }}]\n", "github-expression"),
    ],
)
def test_what_a_policy_never_needs_is_refused(text, code):
    assert code in [problem.code for problem in refusals(text)]
    assert check(text).document is None


@pytest.mark.parametrize(
    "text",
    [
        "---\na: b\n",
        "a: b\n...\n",
        "a: b\r\nc: d\r\n",
        "# c\n\na: 'b'  # d\n",
        "{a: b}\n",
        "",
        "# \u26a0\ufe0f é 語 \U0001f4a5\n",
    ],
)
def test_plain_yaml_is_let_through(text):
    assert refusals(text) == []


def test_a_duplicate_key_names_the_line_of_the_first():
    (problem,) = refusals("a: 1\nb: 2\na: 3\n")
    assert (problem.line, "line 1" in problem.message) == (3, True)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        "[" * 60 + "," * 60_000,
        "{" * 8 + "a:" * 30_000,
        "- " * 30_000,
        "? " * 30_000,
        "a: b\n" * 13_000,
        "".join(f"k{n}: v\n" for n in range(7_000)),
        "a: '" + "x" * 60_000,
        "a: " + "9" * 60_000,
        "a: " + "1:" * 30_000,
        "a: |\n" + " \n" * 30_000,
        "allowed-endpoints: " + "a " * 30_000,
        "allowed-endpoints: >\n" + "  a\n" * 15_000,
        "allowed-endpoints: [" + "a," * 30_000 + "]",
        "allowed-endpoints: >\n" + "  https://x\n" * 5_000,
        "#" * 60_000,
        "\n" * 60_000,
        "\0" * 60_000,
        "&a " * 20_000,
        "a: " + "*" * 60_000,
        "a" * 60_000 + ": b",
        "lockdown-mode:\n  detections:\n" + "    - x\n" * 8_000,
        MERGE_BOMB,
    ],
    ids=lambda text: f"{text[:20]!r}…",
)
def test_no_hostile_text_takes_long(text):
    # Not a benchmark: what this guards against took seconds to minutes.
    # Processor time, so that a busy machine does not count.
    started = time.thread_time()
    check(text)
    assert time.thread_time() - started < 1
