"""The list of policies of a large organization beside that of a small one, in the same store."""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx

from tests.benchmarks import figures, servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.policy_seeds import MARK
from tests.benchmarks.scale import Scale

SMALL, LARGE = "small-org", "large-org"
SORTS = ("changed", "-changed", "name", "-name", "endpoints", "-endpoints", "attached", "-attached")
SHOWN = ("block", "audit", "unattached", "risky")
NARROWED_AND_SORTED = (("unattached", "-attached"), ("unattached", "name"), ("block", "name"), ("risky", "-endpoints"))
PAGE = 50
Query = Callable[[str], dict[str, str]]


def _same(**query: str) -> Query:
    return lambda login: query


def _tenth(search: str, **query: str) -> Query:
    return lambda login: {"q": search if login == LARGE else search.replace("-09", "-00"), **query}


SEARCHES: dict[str, Query] = {
    "hits every policy": _same(q="example.com"),
    # All of the small organization.
    "hits a tenth": _same(q="policy-00"),
    "hits 30": _same(q=MARK),
    "hits 1 by its name": _same(q="policy-000042"),
    "hits 1 by its scope": _same(q="repository-000043/ci-0"),
    "hits 1 by two words": _same(q=f"{MARK} policy-000000"),
    "hits none": _same(q="xylophone"),
    "none, of runs that all have": _same(q="example.community"),
    "of 1 character, hits every policy": _same(q="e"),
    "of 1 character, hits none": _same(q="!"),
    "of 2 characters, hits 30": _same(q="qu"),
    "of 2 characters, hits none": _same(q="qx"),
    "hits 30, narrowed to block": _same(q=MARK, show="block"),
    "hits 30, by name": _same(q=MARK, sort="name"),
    # All of the small organization; of the large one those at the end of the order, or strewn among those that have
    # as many endpoints, but none at its beginning.
    "hits a tenth, the last by name": _tenth("policy-09", sort="name"),
    "hits a tenth, none near the first by endpoints": _tenth("policy-09", sort="endpoints"),
    "hits a tenth by two words, the last by name": _tenth("policy-09 team", sort="name"),
    "hits a tenth by scopes, the last by name": _tenth("repository-09", sort="name"),
    "hits a tenth by a name and scopes, the last by name": _tenth("policy-09 repository", sort="name"),
}


def on_both(scale: Scale) -> Iterator[Figure]:
    """The list at 100 thousand policies and at 100, each page, filter, order and search, on each database."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_postgresql(stack.enter_context(servers.postgresql())))
        yield from _figures(scale, "PostgreSQL", stack, settings)
    with ExitStack() as stack:
        yield from _figures(scale, "SQLite", stack, stack.enter_context(stores.on_sqlite()))


def _figures(scale: Scale, database: str, stack: ExitStack, settings: dict[str, str]) -> Iterator[Figure]:
    sizes = {SMALL: scale.few_policies, LARGE: scale.many_policies}
    told = stores.seed(settings, "policy-list", sizes=sizes)
    store = stack.enter_context(servers.store(settings, workers=scale.workers))
    client = stack.enter_context(browsing(store.port, told["cookies"]))
    for what, query in _pages(scale, told["middles"]).items():
        runs = [_medians(scale, client, query) for _ in range(scale.runs)]
        ratios = [large / small for small, large in runs]
        small, large = (1000 * statistics.median(side) for side in zip(*runs, strict=True))
        name = f"List of {scale.many_policies:,} policies : of {scale.few_policies:,}, on {database}: {what}"
        yield figures.median(name, ratios, most=1.5, note=f"{large:.1f} ms : {small:.1f} ms")


@contextmanager
def browsing(port: int, cookies: dict[str, str]) -> Iterator[httpx.Client]:
    """A browser that is signed in by these cookies."""
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()), "X-Forwarded-Proto": "https"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
        yield client


def _pages(scale: Scale, middles: dict[str, int]) -> dict[str, Query]:
    sizes = {SMALL: scale.few_policies, LARGE: scale.many_policies}

    def named(behind: Callable[[int], int]) -> Query:
        return lambda login: {"sort": "name", "after": _cursor(f"policy-{behind(sizes[login]):06}", 0)}

    def counted(sort: str, number: int) -> Query:
        # In the middle of all those that have as many.
        return lambda login: {"sort": sort, "after": _cursor(number, middles[login])}

    pages = {"the first page": _same(), "a page in the middle": named(lambda size: size // 2)}
    pages["the last page"] = named(lambda size: max(size - PAGE, 0))
    pages["a page in the middle, by endpoints"] = counted("-endpoints", 12)
    pages["a page in the middle, by attachments"] = counted("-attached", 4)
    pages |= {f"sorted by {sort}": _same(sort=sort) for sort in SORTS}
    pages |= {f"only {show}": _same(show=show) for show in SHOWN}
    pages |= {f"only {show}, sorted by {sort}": _same(show=show, sort=sort) for show, sort in NARROWED_AND_SORTED}
    return pages | {f"search that {what}": query for what, query in SEARCHES.items()}


def _cursor(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _medians(scale: Scale, client: httpx.Client, query: Query) -> tuple[float, float]:
    """How long the page of the small and of the large organization take, in seconds, asked for by turns."""
    taken: dict[str, list[float]] = {SMALL: [], LARGE: []}
    for number in range(scale.page_warm_up + scale.page_requests):
        for login, times in taken.items():
            seconds = _seconds(client, login, query(login))
            if number >= scale.page_warm_up:
                times.append(seconds)
    return statistics.median(taken[SMALL]), statistics.median(taken[LARGE])


def _seconds(client: httpx.Client, login: str, query: dict[str, str]) -> float:
    began = time.perf_counter()
    reply = client.get(f"/organizations/{login}/policy-store/", params=query)
    took = time.perf_counter() - began
    assert reply.status_code == 200, (reply.status_code, query)
    return took
