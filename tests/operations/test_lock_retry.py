"""A migration never holds up the runners of a store that is in use."""

from __future__ import annotations

import sys
import time

import psycopg
import pytest

from tests.faults import clients
from tests.operations.production import Production, database, manage, prepare

NEXT = {"DJANGO_SETTINGS_MODULE": "tests.operations.next_release.settings"}
MIGRATE = [sys.executable, "manage.py", "migrate", "--noinput"]


@pytest.fixture
def in_use():
    """A store of the test's own that serves runners: its settings, and a function that makes one fetch."""
    with database() as settings:
        key = prepare(settings)["key"]
        web = Production(settings, GUNICORN_LOG_LEVEL="critical")
        try:
            yield settings, lambda number: clients.fetch(web.port, key, "hello-world", number)
        finally:
            web.end()


def refused(fetch, *, until):
    """The answers that a runner would not have liked, out of all until this is so."""
    answers = []
    while not (done := until()) or len(answers) < 20:
        answers.append(fetch(len(answers)))
        assert done or len(answers) < 2_000
        time.sleep(0.05)
    return [a for a in answers if a.status != 200 or a.tries > 1 or a.remembered or a.seconds > clients.TIMEOUT_SECONDS]


@pytest.mark.production
def test_a_migration_that_must_wait_for_a_lock_tries_again_and_fetches_go_on(in_use, run):
    settings, fetch = in_use
    with psycopg.connect(settings["DATABASE_URL"], application_name="nightly-report") as reader:
        reader.execute("SELECT count(*) FROM policies_policy")
        migrate = run(MIGRATE, environment={**settings, **NEXT})
        assert refused(fetch, until=lambda: migrate.said.count("A lock is in the way") >= 2) == []
        assert "of nightly-report" in migrate.said
        assert migrate.process.poll() is None
    assert migrate.wait() == 0
    assert refused(fetch, until=lambda: True) == []
    with psycopg.connect(settings["DATABASE_URL"]) as after:
        assert after.execute("SELECT bool_or(of_next_release) FROM policies_policy").fetchone() == (False,)


@pytest.mark.production
def test_a_migration_that_never_gets_its_lock_says_who_holds_it(in_use, run):
    settings, _ = in_use
    with psycopg.connect(settings["DATABASE_URL"], application_name="nightly-report") as reader:
        reader.execute("SELECT count(*) FROM policies_policy")
        time.sleep(1.1)
        migrate = run([*MIGRATE, "--patience", "0"], environment={**settings, **NEXT})
        assert migrate.wait() == 1
    assert "CommandError: Others held locks for 0 s that a migration needs; there is a transaction open" in migrate.said
    assert (
        "of nightly-report). Earlier migrations are applied. End the transactions that hold the locks" in migrate.said
    )
    assert "Traceback" not in migrate.said
    manage({**settings, **NEXT}, "migrate", "--noinput")
