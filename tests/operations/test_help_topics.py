"""The operator's manual on the command line, which needs neither settings nor a database."""

import os
import re
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from policystore.operations.management.commands.help_topics import MANUAL, read_topics, to_plain_text
from tests.both_databases import clean_environment
from tests.operations.running import ROOT

TOPICS = read_topics(MANUAL.read_text(encoding="utf-8"))
LIST_WIDTH = 120


def printed(capsys, *arguments):
    call_command("help_topics", *arguments)
    return capsys.readouterr().out


def test_without_a_topic_it_lists_each_topic_in_one_line(capsys):
    *lines, blank, hint = printed(capsys).splitlines()
    assert [line.split()[0] for line in lines] == list(TOPICS)
    assert all(line.endswith(".") and len(line) <= LIST_WIDTH and "](" not in line for line in lines)
    assert (blank, hint) == ("", "To print a topic: manage.py help_topics TOPIC")


@pytest.mark.parametrize("topic", ["settings", "proxies", "backups", "upgrades", "monitoring"])
def test_what_an_operator_needs_in_an_emergency_is_a_topic(topic):
    assert topic in TOPICS


@pytest.mark.parametrize("topic", TOPICS)
def test_each_topic_is_printed_as_plain_text(capsys, topic):
    prose = [line for line in printed(capsys, topic).splitlines() if not line.startswith("    ")]
    assert prose[0].lower() == topic
    assert prose[1] == "=" * len(topic)
    assert [line for line in prose if re.search(r"```|^\||\*\*|\]\(|^#|`", line)] == []


def test_a_topic_is_found_in_any_case(capsys):
    assert printed(capsys, "Backups") == printed(capsys, "backups")


def test_a_setting_is_printed_with_its_meaning_and_default(capsys):
    lines = printed(capsys, "settings").splitlines()
    place = lines.index("PAGE_SECONDS")
    assert lines[place + 1].startswith("    Meaning: the database timeout, in seconds")
    assert "    Default: 5" in lines[place:]


def test_a_proxy_configuration_can_be_copied_from_the_output(capsys):
    (configuration,) = re.findall(r"^```nginx\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    indented = "\n".join(f"    {line}" if line else "" for line in configuration.splitlines())
    assert indented in printed(capsys, "proxies")


def test_an_unknown_topic_is_refused_with_the_valid_ones():
    with pytest.raises(CommandError) as refused:
        call_command("help_topics", "backup")
    assert str(refused.value) == f"“backup” is not a help topic. Valid topics: {', '.join(TOPICS)}."


@pytest.mark.parametrize(
    ("markdown", "plain"),
    [
        ("a `b` **c [d](#e)**", "a b c d (topic “e”)"),
        ("`*.example.com` [Backups](#backups)", "*.example.com Backups"),
        (
            "[A](https://a.example/b) [C](SECURITY.md#c) [D](../d/e.md)",
            "A (https://a.example/b) C (.github/SECURITY.md) D (d/e.md)",
        ),
        ("1. One\n   two.\n\n   ```\n   three  four\n   ```", "1. One two.\n\n       three  four"),
        ("- One\n- Two", "- One\n- Two"),
        ("| A | B |\n| --- | --- |\n| `c` | d |", "c\n    d"),
        ("| A | B | C |\n| --- | --- | --- |\n| d | e | f |", "d\n    B: e\n    C: f"),
        ("word " * 20, f"{'word ' * 16}\n{'word ' * 4}".replace(" \n", "\n").rstrip()),
    ],
)
def test_markdown_becomes_plain_text(markdown, plain):
    assert to_plain_text(markdown) == plain


def test_a_heading_inside_code_starts_no_topic():
    assert list(read_topics("# Manual\n\n## One\n\n```\n# a comment\n```\n\n## Two words\n")) == ["one", "two-words"]


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["production", "misspelled"])
def test_it_needs_no_settings_and_writes_nothing(tmp_path, mode):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "help_topics", "settings"],
        env={**clean_environment(), "POLICYSTORE_MODE": mode, "POLICYSTORE_DATA_DIR": str(tmp_path / "store")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Settings\n========\n")
    assert os.listdir(tmp_path) == []
