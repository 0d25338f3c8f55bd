"""A store's settings and data for a benchmark, on either database."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.benchmarks import seeds, servers, yardsticks
from tests.both_databases import ROOT, clean_environment

MAKE_YARDSTICK = f"CREATE TABLE {yardsticks.TABLE} (scope_key text PRIMARY KEY, body text NOT NULL)"


def _fill_yardstick(rows: int) -> str:
    return f"""
        INSERT INTO {yardsticks.TABLE}
        WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {rows})
        SELECT 'row-' || n, '{yardsticks.BODY.decode()}' FROM numbers
    """


@contextmanager
def on_postgresql(server: str) -> Iterator[dict[str, str]]:
    """The settings of a store with an empty database of its own on this server."""
    address = servers.new_database(server, f"store_{uuid.uuid4().hex[:12]}")
    settings = {**servers.SETTINGS, "DATABASE_URL": address}
    servers.manage(settings, "migrate", "--noinput")
    yield settings


@contextmanager
def on_sqlite() -> Iterator[dict[str, str]]:
    """The settings of a local store with an empty database in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="policystore-sqlite-") as folder:
        settings = {"POLICYSTORE_MODE": "local", "POLICYSTORE_DATA_DIR": folder}
        servers.manage(settings, "migrate", "--noinput")
        yield settings


def seed(settings: dict[str, str], name: str, **arguments: Any) -> dict[str, Any]:
    """Run one of the seeds in this store; returns its result."""
    environment = {**clean_environment(), "DJANGO_SETTINGS_MODULE": "policystore.config.settings", **settings}
    done = subprocess.run(
        [sys.executable, "-m", seeds.__name__, name],
        cwd=ROOT,
        env=environment,
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seeded: dict[str, Any] = json.loads(done.stdout)
    return seeded


def recorded_fetches(settings: dict[str, str]) -> int:
    """How many job runs the store has."""
    count = "SELECT COUNT(*) FROM runners_jobrun"
    if address := settings.get("DATABASE_URL"):
        with psycopg.connect(address) as connection:
            return int(connection.execute(count).fetchone()[0])  # type: ignore[index]
    with closing(sqlite3.connect(Path(settings["POLICYSTORE_DATA_DIR"]) / "policystore.sqlite3")) as file:
        return int(file.execute(count).fetchone()[0])


def yardstick_on_postgresql(server: str, rows: int) -> str:
    """The address of a database with the yardstick's table."""
    address = servers.new_database(server, f"yardstick_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(MAKE_YARDSTICK)
        connection.execute(_fill_yardstick(rows))
        connection.execute(f"VACUUM ANALYZE {yardsticks.TABLE}")
        connection.execute("CHECKPOINT")
    return address


def yardstick_on_sqlite(folder: Path, rows: int) -> str:
    """The path of a file with the yardstick's table."""
    path = folder / "yardstick.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(MAKE_YARDSTICK)
        connection.execute(_fill_yardstick(rows))
    connection.close()
    return str(path)
