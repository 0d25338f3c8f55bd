"""The README and the manuals: their links lead somewhere, and they name each command of the store."""

import re

import pytest
from django.apps import apps
from django.core.management import find_commands

from tests.both_databases import ROOT

README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / ".github").glob("*.md")), *sorted((ROOT / "tests").glob("*/README.md"))]
README_BYTES = 14_000
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def without_code(document):
    return re.sub(r"^ *```.*?^ *```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(document):
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(document):
    broken = []
    for target in LINK.findall(without_code(document)):
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        if "://" not in target and not (linked.exists() and (not anchor or anchor in anchors(linked))):
            broken.append(target)
    assert broken == []


def test_the_readme_is_short():
    assert README.stat().st_size <= README_BYTES


def test_the_readme_has_one_command_to_run_it_and_one_to_test_it():
    # The first installs only what running needs; the second also what the tests need.
    assert re.findall(r"^python3 -m pip install uv && (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE) == [
        "python3 -m uv run --no-dev manage.py quickstart",
        "python3 -m uv run pytest",
    ]


def test_the_manual_names_each_command_of_the_store():
    manual = (ROOT / ".github" / "OPERATIONS.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| Command \| What it does \|\n\| --- \| --- \|\n((?:\|.+\n)+)", manual, re.MULTILINE)
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    folders = [f"{app.path}/management" for app in apps.get_app_configs() if app.name.startswith("policystore.")]
    assert sorted(named) == sorted(name for folder in folders for name in find_commands(folder))
