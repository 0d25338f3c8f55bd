"""How long the impact preview of a draft takes over very many observed calls, through the page that the editor asks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx

from tests.benchmarks import figures, servers, stores
from tests.benchmarks.figures import Figure
from tests.benchmarks.policy_list import browsing
from tests.benchmarks.scale import Scale

ORGANIZATION = "watched-org"
MOST_MS = 500
# A draft of a size that people write: of the thousand hosts that were called, some by name and some by wildcard.
LISTED = [f"host-{number}.service-{number % 50}.example:443" for number in range(0, 1000, 4)]
WILDCARDS = [f"*.service-{number}.example:443" for number in range(10)]
DRAFT = "egress-policy: block\nallowed-endpoints: >\n" + "".join(f"  {entry}\n" for entry in (*LISTED, *WILDCARDS))
SAVED = "egress-policy: block\nallowed-endpoints: >\n" + "".join(
    f"  host-{number}.service-{number % 50}.example:443\n" for number in range(0, 1000, 3)
)
COUNTED = re.compile(r"<strong>([\d,]+|none)\s+of\s+([\d,]+)\s+job\s+runs?</strong>")


def on_both(scale: Scale) -> Iterator[Figure]:
    """The impact over all observed calls, on each database: of a draft, and of a blocking policy's next version."""
    with ExitStack() as stack:
        settings = stack.enter_context(stores.on_postgresql(stack.enter_context(servers.postgresql())))
        yield from _figures(scale, "PostgreSQL", stack, settings)
    with ExitStack() as stack:
        yield from _figures(scale, "SQLite", stack, stack.enter_context(stores.on_sqlite()))


def _figures(scale: Scale, database: str, stack: ExitStack, settings: dict[str, str]) -> Iterator[Figure]:
    seeded = stores.seed(settings, "impact", login=ORGANIZATION, calls=scale.observed_calls, saved=SAVED)
    store = stack.enter_context(servers.store(settings, workers=scale.workers))
    cookies = {**seeded["cookies"], seeded["csrf_cookie"]: seeded["csrf"]}
    client = stack.enter_context(browsing(store.port, cookies))
    # As a browser sends it from a page of the store.
    client.headers.update(
        {"X-CSRFToken": seeded["csrf"], "Referer": f"https://127.0.0.1:{store.port}/", "HX-Request": "true"}
    )
    drafts: dict[str, dict[str, str]] = {
        "a draft": {},
        "a blocking policy's next version": {"policy": seeded["policy"]},
    }
    for what, data in drafts.items():
        for _ in range(scale.page_warm_up):
            _asked(client, data, seeded["runs"])
        asked = [_asked(client, data, seeded["runs"]) for _ in range(max(scale.page_requests, scale.runs))]
        yield figures.median(
            f"Impact of {what} over {scale.observed_calls:,} calls, on {database}",
            [milliseconds for milliseconds, _ in asked],
            unit="ms",
            most=MOST_MS,
            note=f"{asked[0][1]} of {seeded['runs']:,} runs would be blocked",
        )


def _asked(client: httpx.Client, data: dict[str, str], runs: int) -> tuple[float, str]:
    """Milliseconds until the whole answer, and how many runs it says the draft would block; it must count all runs."""
    data = {"text": DRAFT, "impact_days": "30", **data}
    began = time.perf_counter()
    reply = client.post(f"/organizations/{ORGANIZATION}/impact/draft/", data=data)
    took = time.perf_counter() - began
    assert reply.status_code == 200, (reply.status_code, reply.text[:500])
    counted = COUNTED.search(reply.text)
    assert counted, reply.text
    assert int(counted[2].replace(",", "")) == runs, counted[0]
    return 1000 * took, counted[1]
