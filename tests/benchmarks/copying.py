"""The yardstick of ingest: the same events into a table with the same columns, indexes and constraints.

PostgreSQL copies them from as many connections as the store has processes; SQLite, where writers take turns, inserts
them from one. A batch is a transaction of its own, and what makes it durable is on, as in the store. Each writer is a
process: `python -m tests.benchmarks.copying` reads a `Copying` as JSON and writes the seconds of each batch.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from tests.benchmarks.load import Measured

TWIN = "copied"
TABLE = "traffic_networkevent"
SAID = (
    "organization_id, kind, host, port, address, process, ancestry, step, status, is_new, reason, occurred_at,"
    " client_at, received_at"
)
INTO = f"{TWIN} (job_run_id, digest, {SAID})"
SAMPLE = f"SELECT {SAID} FROM {TABLE} ORDER BY id LIMIT"
REFERENCES = f"""
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND conrelid = '{TABLE}'::regclass
"""
PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"


@dataclass(frozen=True)
class Copying:
    """`database` is an address of PostgreSQL or a file of SQLite; the job runs are those that events may be of."""

    database: str
    runs: list[int]
    events: int
    seconds: float

    @property
    def is_postgresql(self) -> bool:
        """Whether it is not SQLite."""
        return self.database.startswith("postgresql://")


def make_twin(database: str) -> None:
    """Make the empty table beside the store's own."""
    (_twin_on_postgresql if database.startswith("postgresql://") else _twin_on_sqlite)(database)


def measure(copying: Copying, *, writers: int) -> Measured:
    """Let so many writers copy what the store has stored, over and over, each time as other events."""
    command = [sys.executable, "-m", "tests.benchmarks.copying"]
    pipe, request = subprocess.PIPE, json.dumps(asdict(copying))
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(writers)]
    # Each starts when its input arrives, so that none begins alone.
    for process in started:
        assert process.stdin is not None
        process.stdin.write(request)
        process.stdin.close()
    batches = [json.loads(process.stdout.read()) for process in started if process.stdout is not None]
    assert [process.wait() for process in started] == [0] * writers
    ordered = sorted(seconds for one in batches for seconds in one)
    middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return Measured(len(ordered) * copying.events, copying.seconds, middle, late, ordered[-1])


def run(copying: Copying) -> list[float]:
    """Write batches until the time is over; returns how long each took."""
    writer = _postgresql if copying.is_postgresql else _sqlite
    write, picked, batches = writer(copying), random.Random(), []
    ends = time.perf_counter() + copying.seconds
    while (began := time.perf_counter()) < ends:
        write(picked.choice(copying.runs), uuid.uuid4().hex[:28])
        batches.append(time.perf_counter() - began)
    return batches


def _postgresql(copying: Copying) -> Callable[[int, str], None]:
    connection = psycopg.connect(copying.database, autocommit=True)
    with connection.cursor().copy(f"COPY ({SAMPLE} {copying.events}) TO STDOUT") as sample:
        lines = b"".join(sample).decode().splitlines(keepends=True)

    def write(job_run: int, batch: str) -> None:
        text = "".join(f"{job_run}\t{batch}{number:04}\t{line}" for number, line in enumerate(lines))
        with connection.cursor().copy(f"COPY {INTO} FROM STDIN") as copy:
            copy.write(text)

    return write


def _sqlite(copying: Copying) -> Callable[[int, str], None]:
    connection = sqlite3.connect(copying.database, isolation_level=None, timeout=20)
    connection.executescript(PRAGMAS)
    rows: list[tuple[Any, ...]] = connection.execute(f"{SAMPLE} {copying.events}").fetchall()
    statement = f"INSERT INTO {INTO} VALUES ({', '.join('?' * (len(rows[0]) + 2))})"

    def write(job_run: int, batch: str) -> None:
        values = [(job_run, f"{batch}{number:04}", *row) for number, row in enumerate(rows)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(statement, values)
        connection.execute("COMMIT")

    return write


def _twin_on_postgresql(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {TWIN} (LIKE {TABLE} INCLUDING ALL)")
        for (reference,) in connection.execute(REFERENCES).fetchall():
            connection.execute(f"ALTER TABLE {TWIN} ADD {reference}")


def _twin_on_sqlite(database: str) -> None:
    connection = sqlite3.connect(database)
    made = connection.execute("SELECT name, sql FROM sqlite_master WHERE tbl_name = ? AND sql > ''", [TABLE]).fetchall()
    for name, statement in sorted(made, key=lambda one: one[0] != TABLE):
        connection.execute(statement.replace(f'"{TABLE}"', f'"{TWIN}"').replace(f'"{name}"', f'"{TWIN}_{name}"'))
    connection.close()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Copying(**json.load(sys.stdin)))))
