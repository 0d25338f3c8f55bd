"""The list of policies of a large organization: each page, filter, order and search."""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from tests.benchmarks import figures, servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.policy_seeds import MARK
from tests.benchmarks.scale import Scale

ORGANIZATION = "large-org"
MOST_MILLISECONDS = 300
SORTS = ("changed", "-changed", "name", "-name", "endpoints", "-endpoints", "attached", "-attached")
SHOWN = ("block", "audit", "unattached", "risky")
NARROWED_AND_SORTED = (("unattached", "-attached"), ("unattached", "name"), ("block", "name"), ("risky", "-endpoints"))
PAGE = 50
Query = dict[str, str]


SEARCHES: dict[str, Query] = {
    "hits every policy": {"q": "example.com"},
    "hits a tenth": {"q": "policy-00"},
    "hits 30": {"q": MARK},
    "hits 1 by its name": {"q": "policy-000042"},
    "hits 1 by its scope": {"q": "repository-000043/ci-0"},
    "hits 1 by two words": {"q": f"{MARK} policy-000000"},
    "hits none": {"q": "xylophone"},
    "none, of runs that all have": {"q": "example.community"},
    "of 1 character, hits every policy": {"q": "e"},
    "of 1 character, hits none": {"q": "!"},
    "of 2 characters, hits 30": {"q": "qu"},
    "of 2 characters, hits none": {"q": "qx"},
    "hits 30, narrowed to block": {"q": MARK, "show": "block"},
    "hits 30, by name": {"q": MARK, "sort": "name"},
    # They are at the end of the order, or spread over those that have as many endpoints, with none at its beginning.
    "hits a tenth, the last by name": {"q": "policy-09", "sort": "name"},
    "hits a tenth, none near the first by endpoints": {"q": "policy-09", "sort": "endpoints"},
    "hits a tenth by two words, the last by name": {"q": "policy-09 team", "sort": "name"},
    "hits a tenth by scopes, the last by name": {"q": "repository-09", "sort": "name"},
    "hits a tenth by a name and scopes, the last by name": {"q": "policy-09 repository", "sort": "name"},
}


def on_both(scale: Scale) -> Iterator[Figure]:
    """The list at 100 thousand policies: each page, filter, order and search, on each database."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_postgresql(stack.enter_context(servers.postgresql())))
        yield from _figures(scale, "PostgreSQL", stack, settings)
    with ExitStack() as stack:
        yield from _figures(scale, "SQLite", stack, stack.enter_context(stores.on_sqlite()))


def _figures(scale: Scale, database: str, stack: ExitStack, settings: dict[str, str]) -> Iterator[Figure]:
    seeded = stores.seed(settings, "policy-list", sizes={ORGANIZATION: scale.many_policies})
    store = stack.enter_context(servers.store(settings, workers=scale.workers))
    client = stack.enter_context(browsing(store.port, seeded["cookies"]))
    for what, query in _pages(scale.many_policies, seeded["middles"][ORGANIZATION]).items():
        taken = [1000 * _median(scale, client, query) for _ in range(scale.runs)]
        name = f"List of {scale.many_policies:,} policies on {database}: {what}"
        yield figures.median(name, taken, most=MOST_MILLISECONDS, unit="ms")


@contextmanager
def browsing(port: int, cookies: dict[str, str]) -> Iterator[httpx.Client]:
    """A browser that is signed in by these cookies."""
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), "X-Forwarded-Proto": "https"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
        yield client


def _pages(size: int, middle: int) -> dict[str, Query]:
    def after_name(number: int) -> Query:
        return {"sort": "name", "after": _cursor(f"policy-{number:06}", 0)}

    pages = {"the first page": {}, "a page in the middle": after_name(size // 2)}
    pages["the last page"] = after_name(max(size - PAGE, 0))
    # In the middle of all those that have as many.
    pages["a page in the middle, by endpoints"] = {"sort": "-endpoints", "after": _cursor(12, middle)}
    pages["a page in the middle, by attachments"] = {"sort": "-attached", "after": _cursor(4, middle)}
    pages |= {f"sorted by {sort}": {"sort": sort} for sort in SORTS}
    pages |= {f"only {show}": {"show": show} for show in SHOWN}
    pages |= {f"only {show}, sorted by {sort}": {"show": show, "sort": sort} for show, sort in NARROWED_AND_SORTED}
    return pages | {f"search that {what}": query for what, query in SEARCHES.items()}


def _cursor(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _median(scale: Scale, client: httpx.Client, query: Query) -> float:
    """How long the page takes, in seconds."""
    taken = [_seconds(client, query) for _ in range(scale.page_warm_up + scale.page_requests)]
    return statistics.median(taken[scale.page_warm_up :])


def _seconds(client: httpx.Client, query: Query) -> float:
    began = time.perf_counter()
    reply = client.get(f"/organizations/{ORGANIZATION}/policy-store/", params=query)
    took = time.perf_counter() - began
    assert reply.status_code == 200, (reply.status_code, query)
    return took
