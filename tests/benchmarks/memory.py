"""How much memory a web process takes after very many requests of all kinds, and whether it goes on growing."""

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


class Asked(NamedTuple):
    """One request, and the status that it must be answered with."""

    status: int
    path: str
    headers: dict[str, str]
    body: str | None = None


def on_both(scale: Scale) -> Iterator[Figure]:
    """Memory of one web process while it answers fetches, refusals, telemetry and pages, on each database."""
    with ExitStack() as stack:
        server = stack.enter_context(servers.postgresql())
        yield from _figures(scale, "PostgreSQL", stack.enter_context(stores.on_postgresql(server)))
    with stores.on_sqlite() as settings:
        yield from _figures(scale, "SQLite", settings)


def _figures(scale: Scale, database: str, settings: dict[str, str]) -> Iterator[Figure]:
    sizes = {"policies": min(POLICIES, scale.policies), "scopes": min(SCOPES, scale.scopes)}
    told = stores.seed(settings, "memory", **sizes, endpoints=ENDPOINTS, exceptions=EXCEPTIONS)
    with servers.store(settings, workers=1) as store:
        (worker,) = store.family()
        sizes_of = [_resident(worker, "VmRSS")]
        requests = mixed(told, sizes["scopes"])
        with ThreadPoolExecutor(scale.clients) as clients:
            for _ in range(PARTS):
                part = itertools.islice(requests, scale.mixed // PARTS)
                list(clients.map(lambda asked: _ask(store.port, asked), part))
                sizes_of.append(_resident(worker, "VmRSS"))
        highest = _resident(worker, "VmHWM")
        assert store.family() == [worker], "the web process was replaced while it was measured"
    note = f"from {sizes_of[0]:.0f} at the start over {sizes_of[PARTS // 2]:.0f} half-way to {sizes_of[-1]:.0f}"
    what = f"Most memory of a web process in {scale.mixed:,} mixed requests, on {database}"
    yield Figure(what, highest, "MiB", most=150, note=note)
    # Pages of memory are taken and given back by the hundred; a leak of 50 bytes a request would be seen.
    grown = sizes_of[-1] - sizes_of[PARTS // 2]
    yield Figure(f"Its growth in the last half, on {database}", grown, "MiB", most=2.5)


def mixed(told: dict[str, str], scopes: int) -> Iterator[Asked]:
    """Of 1,000 requests 630 fetches, 100 each with a wrong key and without a policy, 100 checks without a key, 50
    deliveries of events, 20 pages."""
    runner = {"Authorization": f"vm-api-key {told['key']}"}
    json_runner = {**runner, "Content-Type": "application/json"}
    stranger = {"Authorization": f"vm-api-key {told['revoked']}"}
    pages = itertools.cycle(PAGES)
    for number in itertools.count():
        # Neighbours are far apart, and every scope gets its turn.
        scope = number * 7919 % scopes
        names = {"number": number, "repository": scope // 10, "workflow": scope % 10}
        kind = number * 617 % 1000
        if kind < 630:
            yield Asked(200, FETCH.format(**names), runner)
        elif kind < 730:
            yield Asked(401, FETCH.format(**names), stranger)
        elif kind < 830:
            yield Asked(404, FETCH.format(**{**names, "repository": f"none-{number}"}), runner)
        elif kind < 930:
            yield Asked(200, CHECK.format(**names), {})
        elif kind < 980:
            yield Asked(200, EVENTS.format(**names), json_runner, json.dumps(_events(number)))
        else:
            yield Asked(200, f"/organizations/octo-org/{next(pages)}", {"Cookie": told["cookie"]})


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


def _resident(process_id: int, what: str) -> float:
    """MiB of a process that are in memory now (VmRSS) or were at most (VmHWM), those that it shares counted too."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024 / MIB
