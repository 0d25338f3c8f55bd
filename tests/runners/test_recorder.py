"""How fetches get to the thread that writes them, even if several threads record at the same time."""

import pickle
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from threading import Thread

import pytest

from policystore.runners.fetch import recorder
from policystore.web import metrics

# Two seconds are plenty; a machine that runs tests is busy.
PATIENCE_SECONDS = 30


def some_fetch(number):
    served = {"policy_id": None, "policy_name": "", "policy_version": None, "egress_policy": "", "scope_key": ""}
    job = {"repository": "hello", "workflow": "ci.yml", "run_id": str(number), "correlation_id": "a", "cluster": ""}
    more = {"organization_id": 1, "break_glass": False, "staged_event_id": None, "key_id": 1}
    return recorder.Fetch(**served, **job, **more, at=datetime.now(UTC))


@pytest.fixture
def started(monkeypatch):
    """The threads that were started, none of which runs."""
    found = []

    class Started:
        def __init__(self, **_):
            pass

        def start(self):
            time.sleep(0.05)
            found.append(self)

    monkeypatch.setattr(recorder._state, "automatic", True)
    monkeypatch.setattr(recorder._state, "is_running", False)
    with monkeypatch.context() as patched:
        patched.setattr(recorder.threading, "Thread", Started)
        yield found
    recorder.clear()


def test_threads_that_record_at_once_start_one_that_writes(started):
    ready = threading.Barrier(8)

    def work(number):
        ready.wait()
        recorder.record(some_fetch(number))

    threads = [Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    assert len(recorder._state.queue) == 8


def test_where_no_thread_could_be_started_the_next_fetch_tries_again(started, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(recorder.threading, "Thread", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            recorder.record(some_fetch(1))
    recorder.record(some_fetch(2))
    assert len(started) == 1
    assert len(recorder._state.queue) == 2


@pytest.mark.parametrize(("waiting", "written"), [(1, 1), (100, 32), (800, 100), (20_000, 1000)])
def test_batches_grow_only_where_many_wait(monkeypatch, waiting, written):
    monkeypatch.setattr(recorder, "_pace", lambda: recorder.Pace(batch=32, pause_seconds=0))
    monkeypatch.setattr(recorder.job_runs, "record_fetches", lambda *, fetches: None)
    for number in range(waiting):
        recorder.record(some_fetch(number))
    assert recorder._write_batch() == written
    assert len(recorder._state.queue) == waiting - written
    recorder.clear()


@pytest.mark.parametrize(("written", "waiting", "pause"), [(0, 0, 0.02), (32, 0, 3), (32, 999, 3), (1000, 1000, 0)])
def test_it_does_not_pause_where_it_falls_behind(monkeypatch, written, waiting, pause):
    monkeypatch.setattr(recorder, "_pace", lambda: recorder.Pace(batch=32, pause_seconds=3))
    for number in range(waiting):
        recorder.record(some_fetch(number))
    assert recorder._pause_after(written) == pause
    recorder.clear()


def test_the_thread_goes_on_whatever_fails_in_it(monkeypatch):
    monkeypatch.setattr(recorder._state, "automatic", True)
    monkeypatch.setattr(recorder._state, "is_running", False)
    written, ended, told, write_forever = threading.Event(), threading.Event(), [], recorder._write_forever

    def write_until_written():
        with suppress(SystemExit):
            write_forever()
        ended.set()

    def tell(count):
        told.append(count)
        if len(told) == 1:
            raise ValueError("the folder of metrics is gone")
        if written.is_set():
            # Otherwise the thread would go on, and write what later tests record.
            raise SystemExit

    def record_fetches(*, fetches):
        if fetches[0].run_id == "1":
            written.set()

    monkeypatch.setattr(recorder, "_write_forever", write_until_written)
    monkeypatch.setattr(metrics, "set_records_waiting", tell)
    monkeypatch.setattr(recorder.job_runs, "record_fetches", record_fetches)
    recorder.record(some_fetch(1))
    assert ended.wait(PATIENCE_SECONDS)
    assert len(told) > 1


@pytest.fixture
def passing_on(monkeypatch):
    """The other end of what fetches are passed on to, and the fetches that are written in this process."""
    incoming, outgoing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    written = []
    monkeypatch.setattr(recorder._state, "writer", outgoing)
    monkeypatch.setattr(recorder.job_runs, "record_fetches", lambda *, fetches: written.extend(fetches))
    yield incoming, written
    incoming.close()
    outgoing.close()


def test_fetches_are_passed_on_in_messages(passing_on):
    incoming, written = passing_on
    fetches = [some_fetch(number) for number in range(recorder.MESSAGE_FETCHES + 1)]
    for fetch in fetches:
        recorder.record(fetch)
    assert recorder.flush() == len(fetches)
    received = [pickle.loads(incoming.recv(recorder.MESSAGE_BYTES)) for _ in range(2)]
    assert [*received[0], *received[1]] == fetches
    assert written == []


def test_fetches_that_cannot_be_passed_on_are_written_here(passing_on):
    incoming, written = passing_on
    long = some_fetch(1)._replace(workflow="x" * recorder.MESSAGE_BYTES)
    for fetch in (long, some_fetch(2)):
        recorder.record(fetch)
        recorder.flush()
    assert written == [long]
    incoming.close()
    for number in (3, 4):
        recorder.record(some_fetch(number))
        recorder.flush()
    assert [fetch.run_id for fetch in written] == ["1", "3", "4"]
