"""What a batch of fetches holds while it waits for somebody else, on PostgreSQL, which locks rows."""

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction

from policystore.accounts.models import ApiKey
from policystore.runners import job_runs
from policystore.runners.models import JobRun, LastFetch
from tests import factories

pytestmark = [pytest.mark.production, pytest.mark.django_db(transaction=True)]
PATIENCE_SECONDS = 30


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def batch(organization):
    """Makes fetches of one key, a job each."""
    factories.api_key(organization)
    key_id = ApiKey.objects.get().pk

    def made(*jobs, at):
        policy = {"policy_id": None, "policy_name": "", "policy_version": None, "egress_policy": "", "scope_key": ""}
        more = {"cluster": "", "break_glass": False, "staged_event_id": None, "key_id": key_id, "at": at}
        of = {"organization_id": organization.pk, "repository": "hello", "workflow": "ci.yml", "correlation_id": "a"}
        return [job_runs.Fetch(**of, **policy, **more, run_id=job) for job in jobs]

    return made


@contextmanager
def in_thread(work):
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert errors == []


def wait_until_somebody_waits():
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("Nobody waited")


def test_a_batch_that_waits_for_a_jobs_row_keeps_nobody_from_keys_and_last_fetches(batch):
    now = datetime.now(UTC)
    later = now + timedelta(minutes=1)
    job_runs.record_fetches(fetches=batch("1", "2", at=now))
    held, release = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            JobRun.objects.select_for_update().get(run_id="2")
            held.set()
            release.wait(PATIENCE_SECONDS)

    with in_thread(hold):
        assert held.wait(PATIENCE_SECONDS)
        with in_thread(lambda: job_runs.record_fetches(fetches=batch("1", "2", at=later))):
            try:
                wait_until_somebody_waits()
                with transaction.atomic():
                    assert ApiKey.objects.select_for_update(nowait=True).get().last_used_at == now
                    assert LastFetch.objects.select_for_update(nowait=True).get().at == now
            finally:
                release.set()
    assert ApiKey.objects.get().last_used_at == LastFetch.objects.get().at == later
