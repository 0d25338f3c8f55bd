"""Ingest through HTTP, judged and with aggregates kept, beside copying the same events into the same indexed table."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from tests.benchmarks import copying, figures, recount, servers, stores
from tests.benchmarks.copying import Copying
from tests.benchmarks.figures import Figure
from tests.benchmarks.load import Load, Measured, measure
from tests.benchmarks.scale import Scale

EVENTS = 500
JOBS = 1000
PATH = "/v1/github/octo-org/repository-0/actions/jobs/job-%(scope)d/events"
# As deep as an agent reports it: a step's shell below the runner.
TOOL = {
    "name": "curl",
    "sha256": "a" * 64,
    "parent": {"name": "bash", "sha256": "b" * 64, "parent": {"name": "Runner.Worker", "sha256": "c" * 64}},
}

Runs = tuple[dict[str, Measured], list[dict[str, Measured]]]


def on_postgresql(scale: Scale) -> Iterator[Figure]:
    """Events a second in batches of 500 on PostgreSQL, beside COPY from as many connections as there are processes."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_postgresql(stack.enter_context(servers.postgresql())))
        first, runs = _runs(scale, settings, settings["DATABASE_URL"], writers=scale.workers)
        with psycopg.connect(settings["DATABASE_URL"]) as connection:
            recount.check(lambda asked: connection.execute(asked).fetchone(), *_acknowledged(scale, [first, *runs]))
        yield figures.ratio("Ingest on PostgreSQL : COPY, in events", runs, "ingest", "copy", least=0.20)


def on_sqlite(scale: Scale) -> Iterator[Figure]:
    """Events a second in batches of 500 on SQLite, beside one writer that inserts as many in each transaction."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_sqlite())
        file = str(Path(settings["POLICYSTORE_DATA_DIR"], "policystore.sqlite3"))
        first, runs = _runs(scale, settings, file, writers=1)
        with closing(sqlite3.connect(file)) as connection:
            recount.check(lambda asked: connection.execute(asked).fetchone(), *_acknowledged(scale, [first, *runs]))
        yield figures.ratio("Ingest on SQLite : executemany, in events", runs, "ingest", "copy", least=0.27)


def _runs(scale: Scale, settings: dict[str, str], database: str, *, writers: int) -> Runs:
    """Measure both in turn, with one ingest before, whose events are those that are copied."""
    key = stores.seed(settings, "scopes", policies=10, scopes=100)["key"]
    job_runs = stores.seed(settings, "jobs", jobs=JOBS)["runs"]
    copying.make_twin(database)
    with servers.store(settings, workers=scale.workers) as store:
        load = _load(scale, store.port, key)
        first = {"ingest": _ingest(load, "first")}
        copied = Copying(database, job_runs, EVENTS, scale.seconds)
        measures = {
            "ingest": lambda run: _ingest(load, str(run)),
            "copy": lambda _: copying.measure(copied, writers=writers),
        }
        return first, figures.interleaved(scale.runs, measures)


def _acknowledged(scale: Scale, runs: list[dict[str, Measured]]) -> tuple[int, int]:
    """How many events were acknowledged, and how many more the clients may have sent without hearing of them."""
    known = sum(run["ingest"].acknowledged for run in runs)
    return known * EVENTS, len(runs) * scale.clients * EVENTS


def _load(scale: Scale, port: int, key: str) -> Load:
    return Load(
        port=port,
        path=PATH,
        expected=f'"stored":{EVENTS},"repeated":0,"malformed":0',
        body=json.dumps([_event(number) for number in range(EVENTS)]),
        headers={"Authorization": f"vm-api-key {key}", "Content-Type": "application/json"},
        scopes=JOBS,
        clients=scale.clients,
        seconds=scale.seconds,
        warm_up=scale.warm_up,
    )


def _event(number: int) -> dict[str, Any]:
    """As many look-ups as connections, to 40 hosts; one in a hundred is off the list, and one in the batch stopped."""
    off_list = number % 100 == 99
    event: dict[str, Any] = {
        "type": "dns" if number % 2 else "networkconnection",
        "domainName": f"service-{number // 2 % 40:02}.{'example.org' if off_list else 'example.com'}.",
        "ipAddress": f"192.0.2.{number % 250}",
        "timestamp": datetime.now(UTC).isoformat(),
        "tool": TOOL,
        "delivery": f"%(number)s-{number}",
    }
    connection = {"port": "443", "status": "Dropped" if number == EVENTS - 2 else "Allowed"}
    return event if number % 2 else {**event, **connection}


def _ingest(load: Load, run: str) -> Measured:
    found = measure(Load(**{**load.__dict__, "name": f"ingest-{run}-{time.time_ns()}"}))
    counted = found.requests * EVENTS
    return Measured(counted, found.seconds, found.p50, found.p99, found.longest, found.acknowledged)
