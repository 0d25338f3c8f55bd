"""What load balancers and monitoring are told: /healthz, /readyz and /metrics."""

import threading
import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from policystore.accounts.models import SYSTEM
from policystore.db import online_migrations, statement_timeout
from policystore.integrations import outbox
from policystore.integrations.models import OutboxMessage
from policystore.operations import health, worker
from policystore.operations.models import Heartbeat
from policystore.runners.fetch.connection_pool import Database
from policystore.web import metrics
from tests import factories
from tests.runners.asking import before_django, through_django

TOKEN = "t9Xw2LqRzV5mKc8NyB3hGd6JpS4fQe1UoAiWtM0xYrHk7Tn2Zb5P"
PROBES = ("/healthz", "/readyz", "/metrics")

# A look at the database has a connection of its own, so what it sees must be committed.
committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def away(db, monkeypatch):
    """A database that refuses every connection."""

    def refuse(self):
        raise OperationalError("connection to 10.1.2.3 as policystore refused")

    monkeypatch.setattr(type(connections["default"]), "connect", refuse)


def ready(client):
    """The status of /readyz, and the messages of what it found wrong by name."""
    answer = client.get("/readyz")
    checks = answer.json()["checks"]
    return answer.status_code, {check["name"]: check["message"] for check in checks if not check["ok"]}


def waiting(**due_for):
    """A message that has been due for so long."""
    message = outbox.send_test(integration=factories.integration(factories.organization()), by=SYSTEM)
    OutboxMessage.objects.filter(pk=message.pk).update(next_at=timezone.now() - timedelta(**due_for))
    return message


def test_a_process_that_answers_is_alive_whatever_the_database_does(client, away):
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "no-store" in answer["Cache-Control"]


@committed
def test_a_store_with_all_its_parts_is_ready(client):
    Heartbeat.beat(Heartbeat.WORKER)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert [check["name"] for check in answer.json()["checks"]] == list(health.CHECKS)
    assert all(check["ok"] for check in answer.json()["checks"])


@committed
def test_a_store_without_a_worker_is_not_ready(client):
    assert ready(client) == (503, {"worker": "No worker has ever run; start `manage.py work`."})


@committed
def test_it_tells_for_how_long_no_worker_was_seen(client):
    Heartbeat.beat(Heartbeat.WORKER)
    Heartbeat.objects.update(at=timezone.now() - timedelta(seconds=90))
    status, problems = ready(client)
    assert status == 503
    assert problems["worker"].startswith("No worker for 9")


@committed
def test_the_worker_gives_signs_of_life(client):
    worker.run_due([job for job in worker.jobs() if job.name == "record a heartbeat"], now=0)
    assert ready(client) == (200, {})


@committed
def test_a_migration_that_is_missing_is_named(client):
    Heartbeat.beat(Heartbeat.WORKER)
    app, name = max(online_migrations.known())
    recorder = MigrationRecorder(connection)
    recorder.record_unapplied(app, name)
    try:
        status, problems = ready(client)
    finally:
        recorder.record_applied(app, name)
    assert status == 503
    assert problems == {"migrations": f"The migration {app}.{name} was not applied; run `manage.py migrate`."}


@committed
def test_what_a_newer_release_did_to_the_database_does_not_matter(client):
    Heartbeat.beat(Heartbeat.WORKER)
    recorder = MigrationRecorder(connection)
    recorder.record_applied("policies", "9999_later")
    try:
        assert ready(client) == (200, {})
        assert online_migrations.unknown() == [("policies", "9999_later")]
    finally:
        recorder.record_unapplied("policies", "9999_later")


@committed
def test_messages_that_the_worker_does_not_send_in_time_are_told(client):
    Heartbeat.beat(Heartbeat.WORKER)
    waiting(minutes=30)
    status, problems = ready(client)
    assert status == 503
    assert problems["outbox"].startswith("A message to an integration has been due for 30 min")


@committed
def test_a_receiver_that_fails_does_not_make_the_store_unready(client):
    Heartbeat.beat(Heartbeat.WORKER)
    message = waiting(minutes=30)
    message.integration.paused_until = timezone.now() + timedelta(hours=1)
    message.integration.save(update_fields=["paused_until"])
    assert ready(client) == (200, {})


@committed
def test_a_database_that_takes_no_writes_is_told(client, monkeypatch):
    def refused(name):
        raise OperationalError("no room")

    monkeypatch.setattr(Heartbeat, "beat", refused)
    status, problems = ready(client)
    assert status == 503
    assert problems["writes"].startswith("The database takes no writes")


def test_a_database_that_is_away_is_told_without_its_address(client, away, db, caplog):
    assert ready(client) == (503, {"database": "The database is unavailable; the log says why."})
    assert "10.1.2.3" in caplog.text


def test_readyz_never_hangs(client, db, monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(health, "SECONDS", 0.2)
    monkeypatch.setitem(health.CHECKS, "database", lambda: hanging.wait(60))
    try:
        began = time.monotonic()
        # Nor does a second one wait, or start a second look, while the first hangs.
        answers = [ready(client) for _ in range(3)]
        assert time.monotonic() - began < 10
        assert answers == [(503, {"database": "The database did not answer within 0 s."})] * 3
        assert sum(thread.name == "timed-read" for thread in threading.enumerate()) == 1
    finally:
        hanging.set()


@committed
def test_the_time_that_another_look_takes_counts_too():
    hanging, looking = threading.Event(), threading.Event()

    def look():
        looking.set()
        return hanging.wait(0.5)

    other = threading.Thread(target=lambda: statement_timeout.run_with_timeout(20, look))
    other.start()
    assert looking.wait(20)
    began = time.monotonic()
    try:
        with pytest.raises(statement_timeout.TooSlow):
            statement_timeout.run_with_timeout(1.0, lambda: hanging.wait(60))
        # Half of it was waited for the other look, the other half for its own.
        assert time.monotonic() - began < 1.4
    finally:
        hanging.set()
        other.join()


@committed
def test_a_look_that_cannot_be_started_does_not_hold_up_the_next(monkeypatch):
    def refused(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError):
            statement_timeout.run_with_timeout(1, lambda: 1)
    assert statement_timeout.run_with_timeout(20, lambda: 1) == 1


@committed
def test_a_statement_that_takes_too_long_is_ended_by_the_database():
    if connection.vendor == "sqlite":
        # It has no statement that waits; there, the lock is what could be waited for.
        look = statement_timeout.run_with_timeout(5, lambda: _one("PRAGMA busy_timeout"))
        assert 4000 < look <= 5000
        return
    ended = threading.Event()

    def look():
        try:
            return _one("SELECT pg_sleep(60)")
        finally:
            ended.set()

    with pytest.raises((OperationalError, statement_timeout.TooSlow)):
        statement_timeout.run_with_timeout(0.5, look)
    assert ended.wait(20)


def _one(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


@pytest.mark.parametrize("path", PROBES)
def test_probes_are_answered_by_any_name_without_https_and_session(client, settings, db, path):
    settings.SECURE_SSL_REDIRECT = True
    settings.METRICS_TOKEN = TOKEN
    said = {"authorization": f"Bearer {TOKEN}", "host": "10.4.5.6:8000", "cookie": "sessionid=nonsense"}
    answer = client.get(path, headers=said)
    assert answer.status_code in (200, 503)
    assert "Set-Cookie" not in answer
    assert client.head(path, headers=said).status_code == answer.status_code
    assert client.post(path, headers=said).status_code == 405
    # Everything else still has to be asked for by name, and by https.
    assert client.get("/sign-in/", headers={"host": "10.4.5.6:8000"}).status_code == 400
    assert client.get("/sign-in/").status_code == 301


class TestMetrics:
    """Who may read them, and what they tell."""

    @pytest.fixture(autouse=True)
    def _token(self, settings):
        settings.METRICS_TOKEN = TOKEN

    def scrape(self):
        answer = Client().get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
        samples = [line.rsplit(" ", 1) for line in answer.content.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in samples}

    def grown(self, before, name):
        return self.scrape()[name] - before[name]

    def test_nobody_reads_them_where_no_token_is_set(self, client, settings):
        settings.METRICS_TOKEN = ""
        for said in ({}, {"authorization": "Bearer "}, {"authorization": f"Bearer {TOKEN}"}):
            assert client.get("/metrics", headers=said).status_code == 404

    @pytest.mark.parametrize(
        "said", ["", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", f"Bearer {TOKEN[:-1]}ü"]
    )
    def test_nobody_reads_them_with_another_token(self, client, said):
        answer = client.get("/metrics", headers={"authorization": said})
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
        assert b"policystore_" not in answer.content

    @committed
    def test_fetches_are_counted_by_outcome(self):
        organization = factories.organization()
        key = factories.api_key(organization)
        path = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml"
        before = self.scrape()
        for ask in (before_django, through_django):
            assert ask("GET", path, {"authorization": f"vm-api-key {key}"}).status == 404
            assert ask("GET", path.replace("octo-org", "other"), {"authorization": f"vm-api-key {key}"}).status == 403
            assert ask("GET", path, {}).status == 401
        for outcome in ("401", "403", "404"):
            assert self.grown(before, f'policystore_fetches_total{{outcome="{outcome}"}}') == 2
        assert self.grown(before, 'policystore_fetches_total{outcome="200"}') == 0
        assert self.grown(before, "policystore_fetch_seconds_count") == 6
        assert self.grown(before, 'policystore_fetch_seconds_bucket{le="+Inf"}') == 6
        assert self.grown(before, "policystore_fetch_seconds_sum") > 0

    @committed
    def test_answers_from_memory_and_refusals_are_told_apart_while_the_database_is_away(self, monkeypatch):
        key = factories.api_key(factories.organization())
        path = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow="
        said = {"authorization": f"vm-api-key {key}"}
        before_django("GET", f"{path}known.yml", said)
        before = self.scrape()
        with monkeypatch.context() as patched:
            patched.setattr(Database, "first_row", _away)
            assert before_django("GET", f"{path}known.yml", said).status == 404
            assert before_django("GET", f"{path}unknown.yml", said).status == 503
        assert self.grown(before, 'policystore_fetches_total{outcome="remembered"}') == 1
        assert self.grown(before, 'policystore_fetches_total{outcome="503"}') == 1
        assert self.grown(before, 'policystore_fetches_total{outcome="404"}') == 0

    def test_requests_are_counted_by_kind_and_status(self, away, db):
        before = self.scrape()
        for path, status in (
            ("/v1", 200),
            ("/v1/x", 404),
            ("/static/a.css", 200),
            ("/", 302),
            ("/", 302),
            ("/healthz", 99),
        ):
            metrics.count_request(path, status, 0.25)
        for kind, status, count in (("api", "2xx", 1), ("api", "4xx", 1), ("page", "3xx", 2), ("probe", "1xx", 1)):
            assert self.grown(before, f'policystore_requests_total{{kind="{kind}",status="{status}"}}') == count
        assert self.grown(before, 'policystore_request_seconds_count{kind="api"}') == 2
        assert self.grown(before, 'policystore_request_seconds_sum{kind="page"}') == 0.5

    def test_an_outcome_that_nobody_foresaw_fails_no_fetch(self, away, db):
        before = self.scrape()
        metrics.count_fetch("418", 0.1)
        assert self.grown(before, 'policystore_fetches_total{outcome="other"}') == 1

    @committed
    def test_the_state_of_the_store_is_told(self):
        Heartbeat.beat(Heartbeat.WORKER)
        waiting(minutes=30)
        told = self.scrape()
        assert told["policystore_database_up"] == 1
        assert told["policystore_outbox_waiting"] == 1
        assert told["policystore_outbox_given_up"] == 0
        assert 1790 < told["policystore_outbox_overdue_seconds"] < 1900
        assert 0 <= told["policystore_outbox_oldest_undelivered_seconds"] < 60
        assert 0 <= told["policystore_worker_silence_seconds"] < 60

    def test_counts_are_told_while_the_database_is_away(self, away, db):
        told = self.scrape()
        assert told["policystore_database_up"] == 0
        assert "policystore_outbox_waiting" not in told
        assert 'policystore_fetches_total{outcome="200"}' in told

    @committed
    def test_nothing_of_an_organization_is_told(self, client):
        organization = factories.organization("secretive-org")
        factories.policy(organization, "secret-policy")
        factories.integration(organization, name="secret-siem")
        Heartbeat.beat(Heartbeat.WORKER)
        answer = client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert b"secret" not in answer.content


def _away(*given, **more):
    raise OperationalError("away")
