"""The memory of a web and of a fetch process over very many requests of all kinds, and its growth."""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.scale import Scale

POLICIES = 2000
SCOPES = 100_000
# As long as a policy of a large organization is; of all of them together more than a process remembers.
ENDPOINTS = 500
EXCEPTIONS = 10
PARTS = 20
MIB = 1024 * 1024
REPOSITORY = "/v1/github/octo-org/repository-{repository}/actions"
FETCH = REPOSITORY + "/policies/workflow-policy?workflow=ci-{workflow}.yml&run_id={number}&correlationId=job-{number}"
CHECK = REPOSITORY + "/policies/workflow-check?workflow=ci-{workflow}.yml"
EVENTS = REPOSITORY + "/jobs/job-{number}/events"
PAGES = (
    *("policy-store/", "policy-store/?q=policy-1", "policy-store/1/", "policy-store/1/edit/", "policy-store/history/"),
    *("runs/", "detections/", "policy-store/1/versions/", "coverage/"),
)


WEB, FETCH_PROCESS = "web", "fetch"


class Asked(NamedTuple):
    """One request, the process that gets it, and the status of the expected response."""

    process: str
    status: int
    path: str
    headers: dict[str, str]
    body: str | None = None


def on_both(scale: Scale) -> Iterator[Figure]:
    """Memory of a web and a fetch process that answer fetches, refusals, telemetry and pages, on each database."""
    with ExitStack() as stack:
        server = stack.enter_context(servers.postgresql())
        yield from _figures(scale, "PostgreSQL", stack.enter_context(stores.on_postgresql(server)))
    with stores.on_sqlite() as settings:
        yield from _figures(scale, "SQLite", settings)


def _figures(scale: Scale, database: str, settings: dict[str, str]) -> Iterator[Figure]:
    sizes = {"policies": min(POLICIES, scale.policies), "scopes": min(SCOPES, scale.scopes)}
    seeded = stores.seed(settings, "memory", **sizes, endpoints=ENDPOINTS, exceptions=EXCEPTIONS)
    with servers.store(settings, workers=1) as web, servers.fetch_process(settings, workers=1) as fetching:
        ports = {WEB: web.port, FETCH_PROCESS: fetching.port}
        workers = {WEB: web.family(), FETCH_PROCESS: fetching.family()}
        sizes_of = [_resident(workers)]
        requests = mixed(seeded, sizes["scopes"])
        with ThreadPoolExecutor(scale.clients) as clients:
            for _ in range(PARTS):
                part = itertools.islice(requests, scale.mixed // PARTS)
                list(clients.map(lambda asked: _ask(ports[asked.process], asked), part))
                sizes_of.append(_resident(workers))
        highest = _resident(workers, "VmHWM")
        running = {WEB: web.family(), FETCH_PROCESS: fetching.family()}
        assert running == workers, "a worker was replaced while it was measured"
    for process in workers:
        first, middle, last = (sizes_of[part][process] for part in (0, PARTS // 2, -1))
        note = f"from {first:.0f} at the start over {middle:.0f} half-way to {last:.0f}"
        what = f"Most memory of a {process} worker in {scale.mixed:,} mixed requests, on {database}"
        yield Figure(what, highest[process], "MiB", most=150, note=note)
        # Pages of memory are taken and given back by the hundred; a leak of 50 bytes a request would be seen.
        yield Figure(f"Its growth in the last half, {process} worker on {database}", last - middle, "MiB", most=2.5)


def mixed(seeded: dict[str, str], scopes: int) -> Iterator[Asked]:
    """Of 1,000 requests 630 fetches, 100 each with a wrong key and without a policy, 100 checks without a key, 50
    deliveries of events, 20 pages."""
    runner = {"Authorization": f"vm-api-key {seeded['key']}"}
    json_runner = {**runner, "Content-Type": "application/json"}
    stranger = {"Authorization": f"vm-api-key {seeded['revoked']}"}
    pages = itertools.cycle(PAGES)
    for number in itertools.count():
        # Neighbours are far apart, and every scope gets its turn.
        scope = number * 7919 % scopes
        names = {"number": number, "repository": scope // 10, "workflow": scope % 10}
        kind = number * 617 % 1000
        if kind < 630:
            yield Asked(FETCH_PROCESS, 200, FETCH.format(**names), runner)
        elif kind < 730:
            yield Asked(FETCH_PROCESS, 401, FETCH.format(**names), stranger)
        elif kind < 830:
            yield Asked(FETCH_PROCESS, 404, FETCH.format(**{**names, "repository": f"none-{number}"}), runner)
        elif kind < 930:
            yield Asked(FETCH_PROCESS, 200, CHECK.format(**names), {})
        elif kind < 980:
            yield Asked(WEB, 200, EVENTS.format(**names), json_runner, json.dumps(_events(number)))
        else:
            yield Asked(WEB, 200, f"/organizations/octo-org/{next(pages)}", {"Cookie": seeded["cookie"]})


def _events(number: int) -> list[dict[str, str]]:
    return [
        {
            "type": "networkconnection",
            "domainName": f"service-{one}.example.com.",
            "ipAddress": f"192.0.2.{one}",
            "port": "443",
            "timestamp": "2026-01-31T12:00:00Z",
            "delivery": f"{number}-{one}",
        }
        for one in range(20)
    ]


def _ask(port: int, asked: Asked) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    method = "GET" if asked.body is None else "POST"
    connection.request(method, asked.path, asked.body, {"X-Forwarded-Proto": "https", **asked.headers})
    response = connection.getresponse()
    said = response.read()
    connection.close()
    assert response.status == asked.status, (asked, response.status, said[:500])


def _resident(workers: dict[str, list[int]], what: str = "VmRSS") -> dict[str, float]:
    """MiB in memory of the worker of each process: now (VmRSS) or at most so far (VmHWM), shared pages included."""
    found = {}
    for process, (worker,) in workers.items():
        lines = Path(f"/proc/{worker}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith(f"{what}:")]
        found[process] = int(line.split()[1]) * 1024 / MIB
    return found
