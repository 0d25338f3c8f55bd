"""The environment variables that the store reads, found in its own source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Set by the store for its own processes only.
INTERNAL = {"POLICYSTORE_STARTED_BY", "PROMETHEUS_MULTIPROC_DIR"}
NAME = re.compile(r"[A-Z][A-Z0-9_]{2,}")


def read_by_the_store() -> set[str]:
    """Every variable that some module reads, and that a Procfile's command expands."""
    modules = [ROOT / "manage.py", *(ROOT / "policystore").rglob("*.py")]
    found = {name for module in modules for name in _read_by(ast.parse(module.read_text(encoding="utf-8")))}
    procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
    return (found | set(re.findall(r"\$\{?([A-Z_]+)", procfile))) - INTERNAL


def _read_by(tree: ast.Module) -> Iterator[str]:
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=value, slice=named) if ast.unparse(value) == "os.environ":
                yield from _name(named, constants)
            case ast.Call(func=function, args=[named, *_]) if _reads(ast.unparse(function)):
                yield from _name(named, constants)


def _reads(function: str) -> bool:
    # In env.py itself the functions are called by their bare names.
    return function in ("os.environ.get", "os.getenv", "required", "words") or (
        function.startswith("env.") and function != "env.stop"
    )


def _name(node: ast.expr, constants: dict[str, object]) -> Iterator[str]:
    value = node.value if isinstance(node, ast.Constant) else constants.get(getattr(node, "id", ""))
    if isinstance(value, str) and NAME.fullmatch(value):
        yield value
