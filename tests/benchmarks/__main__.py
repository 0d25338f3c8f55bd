"""`uv run python -m tests.benchmarks [NAME …]`: measure, and print each figure beside its target."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields

from tests.benchmarks import fetch, growth, impact, ingest, memory, never_stale, pages, policy_list, retention
from tests.benchmarks.figures import Figure, table
from tests.benchmarks.scale import TINY, Scale

BENCHMARKS: dict[str, Callable[[Scale], Iterator[Figure]]] = {
    "fetch": fetch.on_postgresql,
    "fetch-sqlite": fetch.on_sqlite,
    "fetch-cargowall": fetch.of_cargowall,
    "never-stale": never_stale.on_both,
    "growth": growth.on_both,
    "ingest": ingest.on_postgresql,
    "ingest-sqlite": ingest.on_sqlite,
    "impact": impact.on_both,
    "memory": memory.on_both,
    "policy-list": policy_list.on_both,
    "pages": pages.on_both,
    "retention": retention.on_both,
}
# Another one than Python's own for a program that failed.
FALLS_SHORT = 3


def main(arguments: list[str] | None = None) -> int:
    """Run what is named, or everything; returns FALLS_SHORT where a figure does."""
    chosen = _parser().parse_args(arguments)
    base = TINY if chosen.tiny else Scale()
    scale = Scale(**{f.name: getattr(chosen, f.name) or getattr(base, f.name) for f in fields(Scale)})
    found: list[Figure] = []
    for name in chosen.names or BENCHMARKS:
        sys.stderr.write(f"{name}: {BENCHMARKS[name].__doc__.splitlines()[0]}\n")
        for figure in BENCHMARKS[name](scale):
            sys.stderr.write(f"  {' | '.join(figure.cells)}\n")
            found.append(figure)
    print(table(found))
    return 0 if all(figure.holds for figure in found) else FALLS_SHORT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help=", ".join(BENCHMARKS))
    parser.add_argument("--tiny", action="store_true", help="only show that everything runs; the figures mean nothing")
    for one in fields(Scale):
        kind = float if one.type == "float" else int
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, metavar="N", help=f"default: {one.default}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
