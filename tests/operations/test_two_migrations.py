"""Two releases that are started together migrate one after the other, on either database."""

import signal
import sys

import pytest

from tests.operations import production

MIGRATE = [sys.executable, "manage.py", "migrate", "--noinput"]
SLOW = {"DJANGO_SETTINGS_MODULE": "tests.operations.slow_release.settings"}
WAITING = "Another migrate is at work on this database; this one goes on when that has ended."


@pytest.fixture
def settings(tmp_path):
    """Those of a store whose database has no tables yet."""
    with production.either_database(tmp_path / "store") as made:
        yield made


@pytest.fixture
def slow(settings, run, tmp_path):
    """Starts the migration of a release that goes on when `goes_on` is there; and that file."""
    goes_on = tmp_path / "goes-on"
    environment = {**settings, **SLOW, "SLOW_RELEASE_GOES_ON": str(goes_on)}
    return lambda: run([*MIGRATE, "slow_release"], environment=environment), goes_on


def test_each_waits_until_the_one_at_work_has_ended_or_was_killed(slow, settings, run):
    start, goes_on = slow
    first = start().wait_for("Applying slow_release.0001_initial")
    second = start().wait_for(WAITING)
    assert (first.process.poll(), second.process.poll()) == (None, None)
    first.stop(signal.SIGKILL)
    second.wait_for("Applying slow_release.0001_initial")
    third = start().wait_for(WAITING)
    # Who only asks what is to be done does not wait.
    asking = run([*MIGRATE, "--check"], environment=settings)
    assert asking.wait() == 1
    assert WAITING not in asking.said
    assert third.process.poll() is None
    goes_on.touch()
    assert (second.wait(), third.wait()) == (0, 0)
    assert second.said.endswith("OK\n")
    assert "No migrations to apply" in third.said
    assert third.said.count(WAITING) == 1


def test_two_that_are_started_at_once_make_one_store(settings, run):
    both = [run(MIGRATE, environment=settings) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0], [one.said for one in both]
    assert sorted(one.said.count("Applying ") > 0 for one in both) == [False, True]
    assert sorted("No migrations to apply" in one.said for one in both) == [False, True]
