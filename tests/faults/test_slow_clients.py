"""Slow clients wait for themselves alone: behind the proxy of OPERATIONS.md, others notice nothing of them."""

from __future__ import annotations

import json
import statistics
import time
from types import SimpleNamespace

import pytest

from tests.faults import clients
from tests.faults.slow_clients import FETCH, OPENINGS, SlowClients
from tests.operations.production import FetchProcess, Production
from tests.operations.proxies import BOTH, Proxy
from tests.operations.running import Running

pytestmark = pytest.mark.production

CLIENTS = 4


@pytest.fixture(scope="module")
def stores(production):
    """The web and the fetch process, as the Procfile has them, and the key of their organization."""
    more = {"TRUST_FORWARDED_HEADERS": "1", "GUNICORN_LOG_LEVEL": "critical", "WEB_CONCURRENCY": "2"}
    web, fetch = Production(production.settings, **more), FetchProcess(production.settings, **more)
    yield SimpleNamespace(web=web, fetch=fetch, key=production.keys["key"])
    web.end()
    fetch.end()


@pytest.fixture(params=BOTH)
def proxy(request, stores, tmp_path):
    started = []

    def run(*arguments, **options):
        started.append(Running(*arguments, **options))
        return started[-1]

    yield Proxy(request.param, run, tmp_path / "proxy", stores.web.port, stores.fetch.port)
    for process in started:
        process.end()


def fetches(proxy, key, count):
    """How long so many fetches took by several clients at once, each on a connection of its own; and which were wrong,
    with them the pages that were asked for beside them."""
    seconds, wrong = [], []

    def ask(client):
        for number in range(count // CLIENTS):
            began = time.monotonic()
            status, _, body = proxy.ask(FETCH, Authorization=f"vm-api-key {key}")
            seconds.append(time.monotonic() - began)
            if status != 200 or json.loads(body)["policy_name"] != "default":
                wrong.append((FETCH, status))
            if number % 10 == 0 and (page := proxy.ask("/sign-in/")[0]) != 200:
                wrong.append(("/sign-in/", page))

    clients.together(CLIENTS, ask)
    return seconds, wrong


def p99(seconds):
    return statistics.quantiles(seconds, n=100)[98] * 1000


def test_others_notice_nothing_of_slow_clients(proxy, stores, request, full, tell):
    each, rounds, count = (50, 5, 600) if full else (12, 1, 80)
    without, beside, wrong, came_again = [], [], [], 0
    for _ in range(rounds):
        seconds, failed = fetches(proxy, stores.key, count)
        without, wrong = without + seconds, wrong + failed
        with SlowClients(proxy.connect, each=each) as slow:
            time.sleep(1)
            seconds, failed = fetches(proxy, stores.key, count)
            # They are there to the end, each kind of them.
            held = slow.held
            assert held.keys() == OPENINGS.keys()
            assert min(held.values()) >= each * 0.9, held
            came_again += slow.came_again.total()
        beside, wrong = beside + seconds, wrong + failed
    name = request.node.callspec.params["proxy"].__name__
    tell(
        f"slow clients behind {name}: {len(beside)} fetches beside {each * len(OPENINGS)} slow connections "
        f"({came_again} of them closed and opened again), {len(wrong)} wrong, p99 {p99(beside):.0f} ms, "
        f"without them {p99(without):.0f} ms; slowest {max(beside) * 1000:.0f} ms, without {max(without) * 1000:.0f} ms"
    )
    assert wrong == []
    # How long answers take says something on an idle machine alone.
    if full:
        assert max(beside) < clients.TIMEOUT_SECONDS
        assert p99(beside) < 2 * p99(without)
