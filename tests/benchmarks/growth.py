"""The policy fetch with a hundred times as many attachments, and whether its plan is index look-ups alone."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.benchmarks import figures, servers, stores
from tests.benchmarks.fetch import fetching, measures
from tests.benchmarks.figures import Figure
from tests.benchmarks.scale import Scale

FEW = 100


def on_both(scale: Scale) -> Iterator[Figure]:
    """Fetch from 10 thousand and from 1 million attachments, on each database."""
    with ExitStack() as stack:
        server = stack.enter_context(servers.postgresql())
        small, large = (stack.enter_context(stores.on_postgresql(server)) for _ in range(2))
        yield _ratio(scale, "PostgreSQL", small, large)
        yield _plan("PostgreSQL", _postgresql_scans(large["DATABASE_URL"]))
    with ExitStack() as stack:
        small, large = (stack.enter_context(stores.on_sqlite()) for _ in range(2))
        yield _ratio(scale, "SQLite", small, large)
        yield _plan("SQLite", _sqlite_scans(Path(large["POLICYSTORE_DATA_DIR"]) / "policystore.sqlite3"))


def _ratio(scale: Scale, database: str, small: dict[str, str], large: dict[str, str]) -> Figure:
    with ExitStack() as stack:
        loads = {}
        for name, settings, divisor in (("small", small, FEW), ("large", large, 1)):
            sizes = {"policies": scale.policies // divisor, "scopes": scale.scopes // divisor}
            seeded = stores.seed(settings, "scopes", **sizes)
            store = stack.enter_context(servers.fetch_process(settings, workers=scale.workers))
            loads[name] = fetching(scale, store, seeded["key"], **sizes)
        runs = figures.interleaved(scale.runs, measures(loads))
    what = f"Fetch from {scale.scopes:,} attachments : from {scale.scopes // FEW:,}, on {database}"
    return figures.ratio(what, runs, "large", "small", least=0.90)


def _plan(database: str, scans: list[str]) -> Figure:
    note = ", ".join(scans) or "index look-ups alone"
    return Figure(f"Tables that a fetch reads without an index, on {database}", len(scans), most=0, note=note)


def _postgresql_scans(address: str) -> list[str]:
    """The tables that the plan reads as a whole, once it no longer depends on the parameters."""
    seeded = stores.seed({"DATABASE_URL": address, "POLICYSTORE_MODE": "local"}, "statement")
    with psycopg.connect(address) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        row = connection.execute(f"EXPLAIN (FORMAT JSON) {seeded['statement']}", seeded["parameters"]).fetchone()
        assert row is not None
        plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
        scanned = [node["Relation Name"] for node in _nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"]
        return [table for table in scanned if _has_rows(connection, table)]


def _has_rows(connection: psycopg.Connection[Any], table: str) -> bool:
    """Whether there is anything to read: nothing is as fast as reading all of an empty table."""
    found = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))).fetchone()
    return bool(found and found[0])


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)


def _sqlite_scans(path: Path) -> list[str]:
    """The tables that the plan reads as a whole; what the statement made itself, such as the row found, is none."""
    settings = {"POLICYSTORE_DATA_DIR": str(path.parent), "POLICYSTORE_MODE": "local"}
    seeded = stores.seed(settings, "statement")
    statement = "EXPLAIN QUERY PLAN " + re.sub(r"%\((\w+)\)s", r":\1", seeded["statement"])
    connection = sqlite3.connect(path)
    steps = [row[3] for row in connection.execute(statement, seeded["parameters"])]
    connection.close()
    made = {step.split()[1] for step in steps if step.startswith(("MATERIALIZE", "CO-ROUTINE"))}
    return [step for step in steps if step.startswith("SCAN") and step.split()[1] not in made]
