"""The fetch's SQL outside of a transaction, as in production: how it fails, and how soon."""

import socket
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from unittest.mock import patch

import psycopg
import pytest
from django.db import Error, connection

from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import connection_pool, handler
from policystore.runners.fetch.connection_pool import Database, Statement
from tests import factories
from tests.operations.running import wait_until
from tests.runners.asking import before_django, through_django

pytestmark = pytest.mark.django_db(transaction=True)
on_postgresql = pytest.mark.production

STATEMENT = Statement(
    "SELECT o.id, o.login, o.key FROM inventory_organization o WHERE o.key = %(key)s AND o.login <> %(other)s"
)
OCTO, NOBODY = {"key": "octo-org", "other": ""}, {"key": "nobody", "other": ""}
TARGET = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow="
# Clients give up after three seconds.
IN_TIME = 2.5


@pytest.fixture
def organization():
    return factories.organization("Octo-Org")


@pytest.fixture
def found(organization):
    return organization.pk, "Octo-Org", "octo-org"


@pytest.fixture
def database():
    made = Database(STATEMENT, NOBODY)
    yield made
    made.close()


@pytest.fixture
def bearer(organization):
    policy = factories.policy(organization)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=factories.SYSTEM)
    return {"authorization": f"vm-api-key {factories.api_key(organization)}"}


def timed(work, *arguments):
    """What it returns or the database error that it raises, and the seconds that it took."""
    began = time.monotonic()
    try:
        result = work(*arguments)
    except Error as error:
        result = error
    return result, time.monotonic() - began


@contextmanager
def administrator():
    """A connection of an administrator to the database of the test."""
    connection.ensure_connection()
    with psycopg.connect(connection.connection.info.dsn, autocommit=True) as made:
        yield made


def end_connections():
    """End every connection but those of the test, as a restart of the database does, and wait until they are gone."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)"
    own = [connection.connection.info.backend_pid]
    with administrator() as server:
        server.execute(f"SELECT pg_terminate_backend(pid) {others}", own)
        wait_until(lambda: server.execute(f"SELECT count(*) {others}", own).fetchone() == (0,), "their end", seconds=10)


@contextmanager
def locked_policies():
    with administrator() as server, server.transaction():
        server.execute("LOCK TABLE policies_policy IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def addresses(*silent, then_database=False):
    """The database has so many addresses that take connections and never say anything, before its own one or alone."""
    connection.ensure_connection()
    hosts = [host for host, _ in silent]
    ports = [str(port) for _, port in silent]
    if then_database:
        hosts.append(connection.connection.info.host)
        ports.append(str(connection.connection.info.port))
    with patch.dict(connection.settings_dict["OPTIONS"], {"host": ",".join(hosts), "port": ",".join(ports)}):
        yield


@pytest.fixture
def silent():
    listeners = [socket.create_server((f"127.0.0.{number}", 0)) for number in (1, 2, 3)]
    yield [listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()


def test_it_finds_the_row_again_and_again(database, found):
    for _ in range(3):
        assert database.first_row(STATEMENT, OCTO) == found
        assert database.first_row(STATEMENT, NOBODY) is None


def test_threads_share_a_few_connections(database, found):
    rows = []
    threads = [
        threading.Thread(target=lambda: rows.extend([database.first_row(STATEMENT, OCTO) for _ in range(20)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows == [found] * 160
    assert len(database._pool._open_connections) <= connection_pool.CONNECTIONS


PREPARED = Statement("SELECT COUNT(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT o.id, o.login%'")


@on_postgresql
def test_a_fetch_is_prepared_on_a_connection_to_postgresql_itself(database, found):
    database.first_row(STATEMENT, OCTO)
    assert database.first_row(PREPARED, {}) == (1,)


@on_postgresql
def test_a_migration_that_changes_a_type_fails_no_prepared_fetch(database, found):
    assert database.first_row(STATEMENT, OCTO) == found
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE inventory_organization ALTER COLUMN login TYPE varchar(300)")
    assert database.first_row(STATEMENT, OCTO) == found
    assert database.is_available


@on_postgresql
def test_nothing_of_a_fetch_stays_in_the_session_of_a_pooler(database, found, monkeypatch):
    # A pooler's process id is not the server's.
    monkeypatch.setattr(connection_pool, "SLOTS", Statement("SELECT 100, 1, 0"))
    database.first_row(STATEMENT, OCTO)
    assert database.first_row(Statement("SELECT COUNT(*) FROM pg_prepared_statements"), {}) == (0,)
    assert database.first_row(Statement("SELECT COUNT(*) FROM pg_settings WHERE source = 'session'"), {}) == (0,)


@on_postgresql
def test_a_dropped_connection_is_replaced(database, found):
    assert database.first_row(STATEMENT, OCTO) == found
    end_connections()
    # A busy machine may take longer to connect than a fetch waits.
    for _ in range(20):
        with suppress(Error):
            assert database.first_row(STATEMENT, OCTO) == found
            break
        time.sleep(0.2)
    else:
        pytest.fail("the connection was not replaced")
    assert database.is_available


def test_a_dropped_file_is_opened_again(database, found):
    if connection.vendor == "sqlite":
        database.first_row(STATEMENT, OCTO)
        connection.connection.close()
    assert database.first_row(STATEMENT, OCTO) == found


def test_a_statement_that_is_wrong_leaves_the_database_available(database, found):
    database.first_row(STATEMENT, OCTO)
    with pytest.raises(Error):
        database.first_row(Statement("SELECT nothing FROM nowhere"), {})
    assert database.is_available
    assert database.first_row(STATEMENT, OCTO) == found


@on_postgresql
def test_while_connections_are_refused_nobody_waits(database, found):
    assert database.first_row(STATEMENT, OCTO) == found
    with patch.dict(connection.settings_dict["OPTIONS"], {"host": "127.0.0.1", "port": "1"}):
        end_connections()
        for _ in range(3):
            error, seconds = timed(database.first_row, STATEMENT, OCTO)
            assert isinstance(error, Error)
            assert seconds < IN_TIME
        assert seconds < 0.5
    wait_until(lambda: database.is_available, "the database being available again", seconds=10)
    assert database.first_row(STATEMENT, OCTO) == found


@on_postgresql
def test_addresses_that_never_answer_keep_a_fetch_waiting_once_and_briefly(database, organization, silent):
    with addresses(*silent):
        assert timed(database.first_row, STATEMENT, OCTO)[1] < IN_TIME
        error, seconds = timed(database.first_row, STATEMENT, OCTO)
    assert isinstance(error, Error)
    assert seconds < 0.5


@on_postgresql
def test_the_database_is_found_behind_an_address_that_never_answers(database, found, silent):
    with addresses(silent[0], then_database=True):
        wait_until(lambda: timed(database.first_row, STATEMENT, OCTO)[0] == found, "the row", seconds=30)


@on_postgresql
def test_a_name_server_that_hangs_keeps_nobody_waiting(database, organization, monkeypatch):
    goes_on = threading.Event()

    def hang(*_, **__):
        goes_on.wait(30)
        raise OSError("Temporary failure in name resolution")

    with addresses(("database.example.com", 5432)):
        monkeypatch.setattr(socket, "getaddrinfo", hang)
        assert timed(database.first_row, STATEMENT, OCTO)[1] < IN_TIME
        assert timed(database.first_row, STATEMENT, OCTO)[1] < 0.5
        goes_on.set()


def test_without_a_thread_it_fails_as_a_database_error(database, organization, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        if connection.vendor == "postgresql":
            with pytest.raises(Error):
                database.first_row(STATEMENT, OCTO)
    assert database.first_row(STATEMENT, OCTO)


@on_postgresql
@pytest.mark.parametrize("ask", [through_django, before_django])
def test_while_the_table_is_locked_known_jobs_are_answered_and_others_told_to_retry(bearer, ask):
    known = ask("GET", f"{TARGET}ci.yml", bearer)
    assert known.status == 200
    with locked_policies():
        for longest in (IN_TIME, 0.5):
            again, seconds = timed(ask, "GET", f"{TARGET}ci.yml", bearer)
            assert (again.status, again.body, again.headers["policy-store-answer"]) == (200, known.body, "remembered")
            assert seconds < longest
        unknown, seconds = timed(ask, "GET", f"{TARGET}other.yml", bearer)
        assert (unknown.status, unknown.headers["retry-after"]) == (503, "1")
        assert seconds < 0.5
        with administrator() as server:
            waiting = server.execute(
                "SELECT COUNT(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                " WHERE NOT granted AND datname = current_database()"
            ).fetchone()[0]
        # Given-up statements do not pile up in the server.
        assert waiting <= 1
    wait_until(lambda: handler.database.is_available, "the end of the lock", seconds=10)
    fresh = ask("GET", f"{TARGET}other.yml", bearer)
    assert (fresh.status, fresh.body) == (200, known.body)
    assert "policy-store-answer" not in fresh.headers


@on_postgresql
def test_while_the_table_is_locked_the_store_is_not_ready(organization):
    with locked_policies():
        answer, seconds = timed(through_django, "GET", "/readyz", {})
    assert (answer.status, answer.json()["status"]) == (503, "not ready")
    assert answer.json()["checks"][-1]["message"].startswith("The database ")
    assert seconds < 5
    # A check that was given up goes on once the lock is free, and must not meet the flush after the test.
    with administrator() as server:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
        wait_until(lambda: server.execute(busy).fetchone() == (1,), "the end of every statement", seconds=20)


def test_a_reader_of_sqlite_waits_for_no_lock(database, found):
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        with sqlite3.connect(connection.settings_dict["NAME"]) as other:
            other.execute("BEGIN EXCLUSIVE")
            row, seconds = timed(database.first_row, STATEMENT, OCTO)
        other.close()
        assert (row, seconds < IN_TIME) == (found, True)


@pytest.mark.parametrize("ask", [through_django, before_django])
def test_a_job_is_answered_from_memory_while_the_database_is_unavailable(bearer, ask, monkeypatch):
    first = ask("GET", f"{TARGET}ci.yml", bearer)

    def refuse(*_):
        raise Error("connection refused")

    monkeypatch.setattr(Database, "first_row", refuse)
    away = ask("GET", f"{TARGET}ci.yml", bearer)
    assert (away.status, away.body, away.headers["policy-store-answer"]) == (200, first.body, "remembered")
