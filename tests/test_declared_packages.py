"""Every package that the code imports is declared in pyproject.toml, so that none is there by chance."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests.both_databases import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEEDED = PROJECT["project"]["dependencies"]
FOR_TESTS = [*NEEDED, *PROJECT["dependency-groups"]["dev"]]


def normalized(requirement):
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def imported(folder):
    """The top-level names that the modules of this folder import, without the standard library and our own."""
    names = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"policystore", "tests"}


@pytest.mark.parametrize(("folder", "declared"), [("policystore", NEEDED), ("tests", FOR_TESTS)])
def test_every_imported_package_is_declared(folder, declared):
    declared = {normalized(requirement) for requirement in declared}
    distributions = packages_distributions()
    missing = {
        name for name in imported(folder) if not {normalized(found) for found in distributions.get(name, ())} & declared
    }
    assert missing == set()
