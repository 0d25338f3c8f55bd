"""Slow and silent clients never stop fetches, even where no proxy stands before the fetch process."""

from __future__ import annotations

import os
import socket
import statistics
from collections import Counter

import pytest

from policystore.runners.fetch.request_body import SLOTS
from tests.both_databases import CHOSEN
from tests.faults import clients
from tests.operations.production import HOST
from tests.operations.running import wait_until

HEAD = f"HTTP/1.1\r\nHost: {HOST}\r\n"
POLICY = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml"
MONITOR = "/v1/github/octo-org/hello-world/actions/runs/1/monitor"
BATCH = "/v1/github/octo-org/hello-world/actions/jobs/c1/events"
CHECK = "/v1/github/octo-org/hello-world/actions/policies/workflow-check"
# What each sends before it says no more.
KINDS = {
    "idle": "",
    "slow headers": f"GET {POLICY} {HEAD}X-Slow: ",
    "slow body": f"POST {MONITOR} {HEAD}Content-Length: 900\r\n\r\n{{",
    "slow chunks": f"POST {MONITOR} {HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n",
    "slow batch": f"POST {BATCH} {HEAD}Content-Length: 900000\r\n\r\n[",
    "slow fetch body": f"GET {POLICY} {HEAD}Content-Length: 900\r\n\r\n{{",
}
# Those whose body the fetch process waits for.
GIVEN_UP = ("slow body", "slow chunks")


@pytest.fixture(scope="module")
def fetch(shared_store):
    """The fetch process, with one worker process."""
    return shared_store.start_fetch(WEB_CONCURRENCY="1")


def monitor(port, body='{"correlation_id":"c1","job":"build"}'):
    return clients.call(port, "POST", MONITOR, {}, body)


def connect(port, number):
    """Connect from one of ten addresses, none of them that of the ordinary clients."""
    return socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(f"127.0.0.{2 + number % 10}", 0))


@pytest.mark.parametrize("kind", KINDS)
def test_fetches_go_on_beside(kind, shared_store, fetch, full, tell):
    each, count = (400, 600) if full else (40, 40)
    slow = [connect(fetch.port, number) for number in range(each)]
    try:
        for connection in slow:
            connection.sendall(KINDS[kind].encode())
        if kind in GIVEN_UP:
            # Each is answered while its body is still being read, and then holds whatever it can hold.
            statuses = Counter(connection.recv(65536)[9:12] for connection in slow)
            assert statuses[b"408"] == SLOTS
            assert statuses.keys() == {b"408", b"429"}
        answers = []

        def ask(client):
            for number in range(count // 4):
                answers.append(clients.fetch(fetch.port, shared_store.keys["key"], "hello-world", f"{client}-{number}"))

        clients.together(4, ask)
        # Other open routes go on, too.
        check = clients.call(fetch.port, "GET", CHECK, {})
    finally:
        for connection in slow:
            connection.close()
    seconds = [answer.seconds for answer in answers]
    tell(
        f"{kind} on {os.environ[CHOSEN]}, no proxy: {len(answers)} fetches beside {each} such connections, "
        f"p99 {statistics.quantiles(seconds, n=100)[98] * 1000:.0f} ms, slowest {max(seconds) * 1000:.0f} ms"
    )
    assert {(answer.status, answer.tries) for answer in answers} == {(200, 1)}
    assert (check.status, check.json()) == (200, {"has_policy": True, "should_sleep": True})
    # The slots of those who are gone are free again.
    wait_until(lambda: monitor(fetch.port).status == 200, "an answer to monitor", seconds=10)


def test_monitor_goes_on_beside_slow_bodies_of_other_addresses(fetch):
    slow = [connect(fetch.port, number % 2) for number in range(20)]
    try:
        for connection in slow:
            connection.sendall(KINDS["slow body"].encode())
        assert monitor(fetch.port).status == 200
        for connection in slow:
            connection.recv(65536)
        assert monitor(fetch.port).status == 200
    finally:
        for connection in slow:
            connection.close()
    large = monitor(fetch.port, "x" * 20_000)
    assert (large.status, large.json()["error"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "path", [BATCH, BATCH.replace("events", "dns"), "/v1/github/octo-org/actions/policies/ci", "/sign-in/"]
)
def test_what_belongs_to_the_web_process_is_refused_unread(fetch, path):
    with socket.create_connection(("127.0.0.1", fetch.port), timeout=5) as connection:
        # The body is announced and never sent.
        connection.sendall(f"POST {path} {HEAD}Content-Length: 900000\r\n\r\n".encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"Send this request to the web process." in answer
