"""Ingest through HTTP, aggregates kept, beside COPY into the same table with the same indexes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import psycopg

from tests.benchmarks import figures, servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.load import Load, Measured, measure
from tests.benchmarks.scale import Scale

EVENTS = 500
JOBS = 1000
PATH = "/v1/github/octo-org/repository-0/actions/jobs/job-%(scope)d/events"
COPIED = (
    "organization_id, job_run_id, digest, kind, host, port, address, process, ancestry, step, status, is_new, reason,"
    " occurred_at, client_at, received_at"
)
ANCESTRY = [{"name": "curl", "sha256": "a" * 64}, {"name": "bash", "sha256": "b" * 64}]


def on_both(scale: Scale) -> Iterator[Figure]:
    """Events a second in batches of 500, on each database."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_postgresql(stack.enter_context(servers.postgresql())))
        load = _load(scale, stack, settings)
        with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE TABLE copied (LIKE traffic_networkevent INCLUDING ALL)")
        copies = {"copy": lambda _: _copy(scale, settings["DATABASE_URL"])}
        runs = figures.interleaved(scale.runs, {"ingest": lambda run: _ingest(load, run), **copies})
        yield figures.ratio("Ingest on PostgreSQL : COPY, in events", runs, "ingest", "copy", least=0.20)
    with ExitStack() as stack:
        load = _load(scale, stack, stack.enter_context(stores.on_sqlite()))
        rates = [_ingest(load, run).rate for run in range(scale.runs)]
        yield figures.median("Ingest on SQLite", rates, unit="events/s", least=30_000)


def _load(scale: Scale, stack: ExitStack, settings: dict[str, str]) -> Load:
    told = stores.seed(settings, "scopes", policies=10, scopes=100)
    store = stack.enter_context(servers.store(settings, workers=scale.workers))
    return Load(
        port=store.port,
        path=PATH,
        expected=f'"stored":{EVENTS},"repeated":0,"malformed":0',
        body=json.dumps([_event(number) for number in range(EVENTS)]),
        headers={"Authorization": f"vm-api-key {told['key']}", "Content-Type": "application/json"},
        scopes=JOBS,
        clients=scale.clients,
        seconds=scale.seconds,
        warm_up=scale.warm_up,
    )


def _event(number: int) -> dict[str, object]:
    tool = {**ANCESTRY[0], "parent": {**ANCESTRY[1], "parent": None}}
    return {
        "type": "networkconnection",
        "domainName": f"service-{number % 40}.example.com.",
        "ipAddress": f"192.0.2.{number % 250}",
        "port": "443",
        "timestamp": datetime.now(UTC).isoformat(),
        "tool": tool,
        "delivery": f"%(number)s-{number}",
    }


def _ingest(load: Load, run: int) -> Measured:
    found = measure(Load(**{**load.__dict__, "name": f"ingest-{run}-{time.time_ns()}"}))
    return Measured(found.requests * EVENTS, found.seconds, found.p50, found.p99, found.longest)


def _copy(scale: Scale, address: str) -> Measured:
    """As many connections as the store has processes, each a batch a transaction."""
    batches: list[float] = []
    ends = time.perf_counter() + scale.seconds
    writers = [threading.Thread(target=_copy_until, args=(address, ends, batches)) for _ in range(scale.workers)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ordered = sorted(batches)
    middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return Measured(len(ordered) * EVENTS, scale.seconds, middle, late, ordered[-1])


def _copy_until(address: str, ends: float, batches: list[float]) -> None:
    now, ancestry = datetime.now(UTC), json.dumps(ANCESTRY)
    with psycopg.connect(address, autocommit=True) as connection:
        while (began := time.perf_counter()) < ends:
            job = time.time_ns()
            with connection.cursor().copy(f"COPY copied ({COPIED}) FROM STDIN") as copy:
                for n in range(EVENTS):
                    host, address_of = f"service-{n % 40}.example.com", f"192.0.2.{n % 250}"
                    told = (1, job, f"{n:032}", "connection", host, 443, address_of, "curl", ancestry, "", "allowed")
                    copy.write_row((*told, False, "", now, now, now))
            batches.append(time.perf_counter() - began)
