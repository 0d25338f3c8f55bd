"""The time to first byte of very large pages, and their size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx

from tests.benchmarks import figures, servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.policy_list import browsing
from tests.benchmarks.scale import Scale

ORGANIZATION = "busy-org"
MOST_MS = 300
MOST_KB = 512


def on_both(scale: Scale) -> Iterator[Figure]:
    """First bytes of the pages of a busy organization, on each database."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_postgresql(stack.enter_context(servers.postgresql())))
        yield from _figures(scale, "PostgreSQL", stack, settings)
    with ExitStack() as stack:
        yield from _figures(scale, "SQLite", stack, stack.enter_context(stores.on_sqlite()))


def _figures(scale: Scale, database: str, stack: ExitStack, settings: dict[str, str]) -> Iterator[Figure]:
    seeded = stores.seed(
        settings,
        "pages",
        login=ORGANIZATION,
        events=scale.page_events,
        versions=scale.page_versions,
        runs=scale.page_runs,
        repositories=scale.page_repositories,
    )
    store = stack.enter_context(servers.store(settings, workers=scale.workers))
    client = stack.enter_context(browsing(store.port, seeded["cookies"]))
    pages = _pages(seeded["policy"], seeded["run"], scale)
    # In turn, so that what disturbs the machine disturbs all.
    for _ in range(scale.page_warm_up):
        for path in pages.values():
            _asked(client, path)
    runs = [{what: _asked(client, path) for what, path in pages.items()} for _ in range(scale.runs)]
    for what in pages:
        times, sizes = zip(*(run[what] for run in runs), strict=True)
        note = f"{statistics.median(sizes):.0f} kB" + ("" if max(sizes) <= MOST_KB else ", too large")
        yield figures.median(f"{what}, on {database}", times, unit="ms", most=MOST_MS, note=note)


def _pages(policy: int, run: int, scale: Scale) -> dict[str, str]:
    history, own = "policy-store/history/", f"policy-store/{policy}/"
    last = scale.page_versions
    versions = f"{scale.page_versions:,} versions"
    return {
        f"Run with {scale.page_events:,} events": f"runs/{run}/",
        "Run, blocked events alone": f"runs/{run}/?tab=blocked",
        "Run, new events alone": f"runs/{run}/?tab=new",
        f"History of a policy with {versions}": f"{own}history/",
        f"Versions of a policy with {versions}": f"{own}versions/",
        f"History of the organization, {versions}": history,
        "History by person": f"{history}?person=person-7",
        "History by policy": f"{history}?policy=busy",
        "History by scope": f"{history}?scope=attached-10",
        "History by a scope that never was": f"{history}?scope=never-attached",
        "History by time": f"{history}?from=2020-01-01",
        "Comparison of 2,000 changed lines": f"{own}versions/compare/?from={last - 1}&to={last}",
        f"Insights of {scale.page_runs:,} runs": "insights/",
        f"Runs, of {scale.page_runs:,}": "runs/",
        "Runs, a search that finds none": "runs/?q=xylophone",
        f"Coverage of {scale.page_repositories:,} repositories": "coverage/",
    }


def _asked(client: httpx.Client, path: str) -> tuple[float, float]:
    """Milliseconds until the first byte, and kilobytes of the whole page."""
    began = time.perf_counter()
    with client.stream("GET", f"/organizations/{ORGANIZATION}/{path}") as reply:
        assert reply.status_code == 200, (reply.status_code, path)
        pieces = reply.iter_raw()
        size = len(next(pieces))
        took = time.perf_counter() - began
        size += sum(len(piece) for piece in pieces)
    return 1000 * took, size / 1024
