"""How the processes of one server take turns."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from policystore.runners import turns
from policystore.runners.turns import Turns
from tests.operations.running import ROOT

# Gunicorn forks before it has threads; a test runner may have some.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

FORKED = multiprocessing.get_context("fork")


@pytest.fixture
def shared():
    found = Turns()
    found.begin()
    yield found
    os.close(found._file)


def hold(shared, began, ends):
    with shared.taken():
        began.set()
        ends.wait(30)


@pytest.fixture
def holder(shared):
    """A process whose turn it is, and what ends its turn."""
    began, ends = FORKED.Event(), FORKED.Event()
    process = FORKED.Process(target=hold, args=(shared, began, ends))
    process.start()
    assert began.wait(30)
    yield process, ends
    process.kill()
    process.join()


def test_another_process_waits_until_the_turn_ends(shared, holder, monkeypatch):
    process, ends = holder
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 30)
    asked = []

    def nap(seconds):
        asked.append(seconds)
        if len(asked) == 3:
            ends.set()
            process.join()

    monkeypatch.setattr(time, "sleep", nap)
    with shared.taken():
        assert len(asked) == 3


def test_a_turn_ends_with_a_process_that_is_killed(shared, holder, monkeypatch):
    process, _ = holder
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0)
    assert not shared._wait(shared._file)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert shared._wait(shared._file)


def test_nobody_waits_forever(shared, holder, monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.01)
    with shared.taken():
        assert holder[0].is_alive()


def test_a_turn_that_failed_is_over(shared):
    with pytest.raises(ZeroDivisionError), shared.taken():
        raise ZeroDivisionError
    began, ends = FORKED.Event(), FORKED.Event()
    ends.set()
    process = FORKED.Process(target=hold, args=(shared, began, ends))
    process.start()
    process.join(30)
    assert process.exitcode == 0


def test_without_a_file_nobody_waits(monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(turns.tempfile, "TemporaryFile", full)
    found = Turns()
    found.begin()
    with found.taken(), found.taken():
        pass


def test_a_process_that_ends_leaves_nothing_open():
    program = "from policystore.runners.turns import Turns; turns = Turns(); turns.begin(); turns.taken().__enter__()"
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
