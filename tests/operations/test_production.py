"""The processes in production: nothing is lost where it is told to stop or reload, little where it is killed."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from itertools import pairwise

import httpx
import psycopg
import pytest

from tests.operations.production import HOST, FetchProcess, Production
from tests.operations.running import WAIT_SECONDS, alive, wait_until

pytestmark = pytest.mark.production

FETCH = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy"
METRICS_TOKEN = "t9Xw2LqRzV5mKc8NyB3hGd6JpS4fQe1UoAiWtM0xYrHk7Tn2Zb5P"
SECRETS = ("SECRET_KEY", "GITHUB_CLIENT_SECRET")
# After each answer, so that the store and not the clients have the processors.
PAUSE_SECONDS = 0.01


@pytest.fixture
def start():
    """Starts web processes that end with the test."""
    started = []

    def starting(settings, process=Production, **more):
        started.append(process(settings, **more))
        return started[-1]

    yield starting
    for store in started:
        store.end()


class Runners:
    """Ask for policies one after the other, several at once; `answered` is what was answered, and when."""

    def __init__(self, store, key, name, count=4):
        self.answered, self.failed = {}, []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(store, key, f"{name}-{number}")) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, store, key, name):
        number = 0
        headers = {"host": HOST, "authorization": f"vm-api-key {key}", "connection": "close"}
        with httpx.Client(headers=headers, timeout=WAIT_SECONDS) as client:
            while not self._stopping.is_set():
                number += 1
                job = f"{name}-{number}"
                asked = {"workflow": "ci.yml", "run_id": "1", "correlationId": job}
                try:
                    answer = client.get(f"{store.address}{FETCH}", params=asked)
                    assert answer.status_code == 200, answer.text
                    self.answered[job] = time.monotonic()
                    self._stopping.wait(PAUSE_SECONDS)
                except (httpx.TransportError, AssertionError) as error:
                    self.failed.append((job, error))
                    return

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def recorded(settings, name):
    """The correlation ids of the job runs that are in the database."""
    with psycopg.connect(settings["DATABASE_URL"]) as database:
        rows = database.execute("SELECT correlation_id FROM runners_jobrun WHERE correlation_id LIKE %s", [f"{name}-%"])
        return {row[0] for row in rows}


@pytest.mark.parametrize("process", [Production, FetchProcess])
def test_reloading_loses_no_request_and_stopping_no_record(production, start, process):
    name = f"reload-{process.__name__}"
    store = start(production.settings, process)
    runners = Runners(store, production.keys["key"], name)
    for _ in range(3):
        time.sleep(1)
        reload(store)
    time.sleep(1)
    runners.stop()
    # Granian closes a connection that it has accepted, but whose request it has not read when its worker ends.
    closed = (httpx.RemoteProtocolError, httpx.ReadError) if process is FetchProcess else ()
    assert [error for _, error in runners.failed if not isinstance(error, closed)] == []
    assert len(runners.answered) > 50
    assert store.stop() == 0
    assert recorded(production.settings, name) >= set(runners.answered)


@pytest.mark.parametrize("path", ["github/octo-org/hello-world/actions/runs/1/monitor", f"clusters/a%20b{FETCH[3:]}"])
def test_slow_bodies_leave_all_threads_for_fetches(production, start, path):
    store = start(production.settings, FetchProcess, WEB_CONCURRENCY="1")
    headers = {"authorization": f"vm-api-key {production.keys['key']}"}
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", store.port)))
            client.sendall(f"POST /v1/{path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\n".encode())
        # Four of them hold a thread for as long as they stay.
        time.sleep(1.5)
        assert {store.get(f"{FETCH}?workflow=ci.yml", **headers).status_code for _ in range(20)} == {200}


@pytest.mark.parametrize("process", [Production, FetchProcess])
def test_at_most_a_second_of_records_goes_with_processes_that_are_killed(production, start, process):
    name = f"killed-{process.__name__}"
    store = start(production.settings, process)
    runners = Runners(store, production.keys["key"], name)
    time.sleep(4)
    family = [store.process.pid, *store.family()]
    killed = time.monotonic()
    for process_id in family:
        os.kill(process_id, signal.SIGKILL)
    runners.stop()
    wait_until(lambda: not any(alive(process_id) for process_id in family[1:]), "the end of all")
    written = recorded(production.settings, name)
    lost = [answered for job, answered in runners.answered.items() if job not in written]
    assert len(runners.answered) > 50
    # A second, and what a statement under way takes: on a busy machine about as long as the longest silence.
    moments = sorted(runners.answered.values())
    silence = max(later - earlier for earlier, later in pairwise(moments))
    assert all(killed - answered < 2 + 2 * silence for answered in lost), max(killed - answered for answered in lost)


def fetches_counted(store):
    """The fetches with a policy that a scrape of the process counts."""
    counted = 'policystore_fetches_total{outcome="200"} '
    scraped = store.get("/metrics", Authorization=f"Bearer {METRICS_TOKEN}").text
    return float(next(line for line in scraped.splitlines() if line.startswith(counted)).removeprefix(counted))


def reload(store):
    """Have the process replace its workers, and wait until the old ones are gone."""
    before = store.workers()
    store.process.send_signal(signal.SIGHUP)
    wait_until(lambda: before.isdisjoint(store.workers()), "the end of the old processes")


def test_counts_are_of_all_processes_and_outlive_a_reload(production, start):
    store = start(production.settings, METRICS_TOKEN=METRICS_TOKEN, WEB_CONCURRENCY="3")
    assert store.get("/metrics").status_code == 401
    runners = Runners(store, production.keys["key"], "counted")
    time.sleep(1)
    reload(store)
    time.sleep(1)
    runners.stop()
    assert runners.failed == []
    # Every worker returns the same total.
    assert [fetches_counted(store) for _ in range(6)] == [len(runners.answered)] * 6


def test_the_fetch_process_counts_the_fetches_of_all_its_workers(production, start):
    store = start(production.settings, FetchProcess, METRICS_TOKEN=METRICS_TOKEN, WEB_CONCURRENCY="2")
    assert store.get("/metrics").status_code == 401

    def fetch(times):
        headers = {"authorization": f"vm-api-key {production.keys['key']}"}
        assert {store.get(f"{FETCH}?workflow=ci.yml", **headers).status_code for _ in range(times)} == {200}

    fetch(50)
    assert [fetches_counted(store) for _ in range(6)] == [50] * 6
    reload(store)
    fetch(50)
    assert [fetches_counted(store) for _ in range(6)] == [100] * 6


def test_it_is_ready_once_it_has_a_worker_and_alive_before(production, start, run):
    store = start(production.settings)
    addressed = {"host": "10.0.0.7:8000"}
    assert store.get("/healthz", **addressed).status_code == 200
    # Another test's worker may have left a heartbeat.
    worker = run([sys.executable, "manage.py", "work"], environment=production.settings)
    wait_until(lambda: store.get("/readyz", **addressed).status_code == 200, "a heartbeat of the worker")
    assert worker.stop() == 0


def test_failures_are_logged_and_secrets_are_not(production, start):
    key = production.keys["key"]
    password = "pa55w0rd-of-the-database"
    away = f"postgresql://policystore:{password}@127.0.0.1:1/policystore"
    store = start(production.settings, DATABASE_URL=away, TRUST_FORWARDED_HEADERS="1")
    secure = {"X_Forwarded_Proto": "https"}
    fetched = store.get(f"{FETCH}?workflow=ci.yml", Authorization=f"vm-api-key {key}", X_Request_Id="of-the-proxy")
    assert (fetched.status_code, fetched.headers["X-Request-Id"]) == (503, "of-the-proxy")
    link = "/sign-in/link/one-time-secret-of-somebody/"
    answer = httpx.post(f"{store.address}{link}", headers={"host": HOST, "x-forwarded-proto": "https"})
    assert answer.status_code == 403
    asked = ["of-the-proxy", answer.headers["X-Request-Id"]]
    assert store.get("/nowhere/", **secure).status_code in (302, 404)
    assert store.get("/admin/", Cookie="__Host-session=some-session", **secure).status_code == 500
    store.stop()
    lines = [json.loads(line) for line in store.said.splitlines()]
    told = [(line["level"], line["logger"], line.get("message", "")) for line in lines]
    assert any(
        one[:2] == ("ERROR", "policystore.runners.fetch.handler") and "database is unavailable" in one[2]
        for one in told
    )
    assert ("ERROR", "django.request", "Internal Server Error: /admin/") in told
    assert any(one[0] == "WARNING" and re.fullmatch(r"Forbidden .*/sign-in/link/…/", one[2]) for one in told)
    assert "OperationalError" in store.said
    # Each request left one line of its own, and its other lines have the same id.
    answered = {line["request_id"]: line for line in lines if line["logger"] == "policystore.access"}
    assert [answered[request_id]["path"] for request_id in asked] == [
        FETCH,
        link.replace("one-time-secret-of-somebody", "…"),
    ]
    problems = [line for line in lines if line["level"] in ("ERROR", "WARNING")]
    assert all(line["request_id"] in answered for line in problems if line["request_id"])
    for secret in (key, key[7:], password, "one-time-secret", "some-session", *map(production.settings.get, SECRETS)):
        assert secret not in store.said, secret
