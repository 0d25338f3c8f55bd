"""What the worker does again and again, and the worker process itself."""

import os
import signal
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from policystore.accounts import sign_in
from policystore.accounts.models import SignInLink
from policystore.operations import worker
from policystore.operations.processes import StopRequest, end_with_starter
from tests import factories
from tests.operations.production import migrated
from tests.operations.running import wait_until


class Counted:
    """Work that counts how often it was done, and may fail."""

    def __init__(self, error=None):
        self.times = 0
        self.error = error

    def __call__(self):
        self.times += 1
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def _connection_stays(monkeypatch):
    # In a test there is one connection, inside a transaction.
    monkeypatch.setattr(worker, "close_old_connections", lambda: None)


def test_everything_is_due_at_the_start_and_then_each_in_its_own_time():
    often, seldom = Counted(), Counted()
    scheduled = [worker.Job("often", 10, often), worker.Job("seldom", 100, seldom)]
    for moment in (1000, 1005, 1010, 1011, 1099, 1101):
        worker.run_due(scheduled, now=moment)
    assert (often.times, seldom.times) == (3, 2)


def test_a_job_that_fails_is_logged_and_keeps_no_other_from_its_turn(caplog):
    broken, sound = Counted(error=RuntimeError("no room on the disk")), Counted()
    scheduled = [worker.Job("sweep the floor", 10, broken), worker.Job("sound", 10, sound)]
    worker.run_due(scheduled, now=0)
    worker.run_due(scheduled, now=5)
    worker.run_due(scheduled, now=10)
    assert (broken.times, sound.times) == (2, 2)
    assert [record.getMessage() for record in caplog.records] == ["The job to sweep the floor failed"] * 2
    assert "no room on the disk" in caplog.text


def test_it_stops_when_told_and_finishes_what_it_began():
    done = Counted()
    asked = iter([False, True])
    worker.run_until(lambda: next(asked), scheduled=[worker.Job("work", 1, done)], pause=0)
    assert done.times == 1


def test_the_clock_that_was_set_back_does_not_stop_the_work():
    # Turns are by the monotonic clock; nothing in the module asks for the time of day.
    assert not hasattr(worker, "datetime")
    assert not hasattr(worker, "timezone")


@pytest.mark.django_db
def test_ended_sessions_and_old_links_are_cleared_and_live_ones_kept():
    now = timezone.now()
    for key, ends in (("ended", now - timedelta(days=1)), ("live", now + timedelta(days=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=ends)
    for name, lifetime in (("old", timedelta(days=-2)), ("fresh", timedelta(hours=1))):
        sign_in.issue_link(user=factories.user(name), lifetime=lifetime)
    worker.run_due(worker.jobs(), now=0)
    assert list(Session.objects.values_list("session_key", flat=True)) == ["live"]
    assert list(SignInLink.objects.values_list("user__username", flat=True)) == ["fresh"]


@pytest.mark.django_db
def test_every_job_bears_being_done_twice(caplog):
    for _ in range(2):
        worker.run_due(worker.jobs(), now=0)
    assert not caplog.records


def test_jobs_have_names_of_their_own_and_a_time_between_turns():
    names = [job.name for job in worker.jobs()]
    assert len(set(names)) == len(names)
    assert all(job.every >= 0.5 for job in worker.jobs())


def test_a_request_to_stop_is_counted_and_raises_nothing():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        request = StopRequest()
        request.listen()
        for number in before:
            os.kill(os.getpid(), number)
        assert request.times == len(before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_process_that_nobody_started_that_way_is_left_alone(monkeypatch):
    started = []
    monkeypatch.setattr("policystore.operations.processes.threading.Thread", lambda **given: started.append(given))
    for starter in ("", "nonsense", "1"):
        monkeypatch.setenv("POLICYSTORE_STARTED_BY", starter)
        end_with_starter()
    assert started == []


@pytest.mark.browser
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_worker_ends_well_when_told(run, tmp_path, number):
    environment = {"POLICYSTORE_DATA_DIR": str(tmp_path)}
    migrated(tmp_path)
    with closing(sqlite3.connect(tmp_path / "policystore.sqlite3")) as database:
        database.execute("INSERT INTO django_session VALUES ('ended', '', '2020-01-01 00:00:00')")
        database.commit()
        worker = run([sys.executable, "manage.py", "work"], environment=environment)
        left = "SELECT count(*) FROM django_session"
        wait_until(lambda: database.execute(left).fetchone() == (0,), "the deletion of an ended session")
    assert worker.stop(number) == 0
    assert "Traceback" not in worker.said
