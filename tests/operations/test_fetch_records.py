"""The process that writes what the workers of a fetch process record."""

import os
import signal
import socket
from contextlib import contextmanager

import psycopg
import pytest

from tests.faults import clients
from tests.operations import production
from tests.operations.production import FetchProcess, prepare
from tests.operations.running import children, wait_until

pytestmark = pytest.mark.production


@pytest.fixture
def store():
    with production.database() as settings:
        keys = prepare(settings)
        yield settings, keys["key"]


@contextmanager
def fetching(settings):
    process = FetchProcess(settings, WEB_CONCURRENCY="2", ACCESS_LOG="0")
    try:
        yield process
    finally:
        process.end()


def recorded(settings, since=0):
    """How many fetches are recorded whose number is at least `since`."""
    with psycopg.connect(settings["DATABASE_URL"]) as database:
        statement = "SELECT count(*) FROM runners_jobrun WHERE run_id::int >= %s"
        return database.execute(statement, [since]).fetchone()[0]


def ask(process, key, numbers):
    for number in numbers:
        assert clients.fetch(process.port, key, "app", number).status == 200


def test_what_was_answered_is_recorded_when_the_process_is_stopped(store):
    settings, key = store
    with fetching(settings) as process:
        ask(process, key, range(50))
        started = children(process.process.pid)
        # As a service manager does, which asks all processes of a service at once.
        os.killpg(process.process.pid, signal.SIGTERM)
        assert process.process.wait(timeout=30) == 0, process.said
    assert recorded(settings) == 50
    assert len(started) == 3


def test_a_stop_does_not_wait_for_a_process_that_hangs(store):
    settings, key = store
    with fetching(settings) as process:
        ask(process, key, range(5))
        wait_until(lambda: recorded(settings) == 5, "the record of the first fetches")
        os.kill(process.recording, signal.SIGSTOP)
        process.process.terminate()
        wait_until(lambda: not answers(process.port), "the end of the listening sockets")
        assert process.process.wait(timeout=30) == 0, process.said
        assert "does not end" in process.said


def answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_without_that_process_the_workers_record_themselves(store):
    settings, key = store
    with fetching(settings) as process:
        ask(process, key, range(5))
        wait_until(lambda: recorded(settings) == 5, "the record of the first fetches")
        os.kill(process.recording, signal.SIGKILL)
        # What it gets until it is gone is lost with it, so wait until a worker notices.
        first = iter(range(5, 1000))

        def noticed():
            ask(process, key, [next(first)])
            return "they are recorded here instead" in process.said

        wait_until(noticed, "a worker that records itself")
        ask(process, key, range(1000, 1015))
        wait_until(lambda: recorded(settings, since=1000) == 15, "the record of the later fetches")
