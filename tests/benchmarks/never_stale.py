"""A policy saved through the web process is served by the next fetch from any fetch process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx

from tests.benchmarks import servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.scale import Scale

POLICY = "/v1/github/octo-org/actions/policies/policy-0"
FETCH = "/v1/github/octo-org/repository-0/actions/policies/workflow-policy?workflow=&run_id=1&correlationId={number}"


def on_both(scale: Scale) -> Iterator[Figure]:
    """Save through the web process and fetch from each of two fetch processes in turn, on each database."""
    with ExitStack() as stack:
        postgresql = stack.enter_context(stores.on_postgresql(stack.enter_context(servers.postgresql())))
        yield _count(scale, "PostgreSQL", postgresql)
    with stores.on_sqlite() as sqlite:
        yield _count(scale, "SQLite", sqlite)


def _count(scale: Scale, database: str, settings: dict[str, str]) -> Figure:
    seeded = stores.seed(settings, "scopes", policies=10, scopes=100)
    with ExitStack() as stack:
        web = stack.enter_context(servers.store(settings, workers=1)).port
        fetch_ports = [stack.enter_context(servers.fetch_process(settings, workers=1)).port for _ in range(2)]
        client = stack.enter_context(httpx.Client())
        fresh = 0
        for number in range(scale.saves):
            saved = {"egress_policy": "block", "allowed_endpoints": [f"number-{number}.example.com:443"]}
            _save(client, web, seeded["management"], saved)
            fresh += _fetched(client, fetch_ports[number % 2], seeded["key"], number) == saved["allowed_endpoints"]
    what = f"Fetches right after a save in the web process, on {database}"
    return Figure(what, fresh, f"fresh of {scale.saves}", least=scale.saves, note="two fetch processes in turn")


def _save(client: httpx.Client, port: int, key: str, saved: dict[str, object]) -> None:
    headers = {"authorization": f"Bearer {key}"}
    answer = client.post(f"http://127.0.0.1:{port}{POLICY}", json=saved, headers=headers)
    assert answer.status_code == 200, answer.text


def _fetched(client: httpx.Client, port: int, key: str, number: int) -> object:
    headers = {"authorization": f"vm-api-key {key}"}
    answer = client.get(f"http://127.0.0.1:{port}{FETCH.format(number=number)}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["allowed_endpoints"]
