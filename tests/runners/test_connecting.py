"""A fetch that needs a new connection answers in time, however long that takes; and whoever comes later has it."""

import socket
import threading
import time
from contextlib import ExitStack

import pytest
from django.db import OperationalError, connection
from django.db.backends.base import base

from policystore.documents.scopes import Scope
from policystore.policies.actions import attachments
from policystore.runners import connecting, fetch, prepared
from policystore.runners.prepared import Prepared
from tests import factories
from tests.operations.running import wait_until
from tests.runners.asking import before_django

# SQLite is not connected to.
pytestmark = [pytest.mark.production, pytest.mark.django_db(transaction=True)]

STATEMENT = "SELECT o.login FROM inventory_organization o WHERE o.key = %(key)s"
ASKED = {"key": "octo-org"}
TARGET = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml"
# What a busy machine may take for all else.
IN_TIME = prepared.ANSWER_SECONDS + 0.4


@pytest.fixture
def look_up():
    found = Prepared("test", STATEMENT)
    factories.organization("Octo-Org")
    assert found.first_row(ASKED)
    yield found
    settle(found)


def settle(statement):
    """Let a connection that is still being made come to its end."""
    attempt = statement._connecting._attempt
    assert attempt is None or attempt.is_over.wait(30)
    statement._connecting.made()


@pytest.fixture
def move(monkeypatch):
    """Takes the connection away, and leads to so many hosts that take connections and say nothing before the database,
    or to these alone."""
    with ExitStack() as listeners:

        def moved(silent, *, then_database):
            connection.ensure_connection()
            info = connection.connection.info
            hosts, ports = [], []
            for number in range(silent):
                listener = listeners.enter_context(socket.create_server((f"127.0.0.{number + 1}", 0)))
                hosts.append(f"127.0.0.{number + 1}")
                ports.append(listener.getsockname()[1])
            if then_database:
                hosts.append(info.host)
                ports.append(info.port)
            options = connection.settings_dict["OPTIONS"]
            monkeypatch.setitem(options, "host", ",".join(hosts))
            monkeypatch.setitem(options, "port", ",".join(map(str, ports)))
            connection.close()

        yield moved


def timed(work):
    """What it returns or raises, and the seconds it took."""
    began = time.monotonic()
    try:
        found = work()
    except OperationalError as error:
        found = error
    return found, time.monotonic() - began


def test_a_fetch_is_answered_in_time_whatever_number_of_addresses_is_silent(move):
    organization = factories.organization("Octo-Org")
    policy = factories.policy(organization)
    attachments.modify(policy=policy, add=[Scope.for_organization("octo-org")], by=factories.SYSTEM)
    bearer = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    first = before_django("GET", TARGET, bearer)
    assert first.status == 200
    try:
        move(3, then_database=False)
        for least, most in ((1, IN_TIME), (0, 0.4)):
            answer, seconds = timed(lambda: before_django("GET", TARGET, bearer))
            assert (answer.status, answer.body) == (200, first.body)
            assert answer.headers["policy-store-answer"] == "remembered"
            assert least <= seconds <= most
    finally:
        settle(fetch._look_up)
        fetch._look_up._resting_until = 0.0


@pytest.mark.parametrize("silent", [1, 2])
def test_the_database_is_found_behind_addresses_that_are_silent(look_up, move, silent):
    move(silent, then_database=True)
    found, seconds = timed(lambda: look_up.first_row(ASKED))
    assert seconds <= IN_TIME
    if silent == 2:
        assert isinstance(found, OperationalError)
    # Though nobody would ask a database that has not answered a moment ago.
    wait_until(lambda: timed(lambda: look_up.first_row(ASKED))[0] == ("Octo-Org",), "the database")
    assert look_up._resting_until == 0.0
    assert connection.connection is look_up._current.connection


def test_a_name_that_is_looked_up_for_long_is_waited_for_as_long_as_a_connection(look_up, move, monkeypatch):
    move(0, then_database=True)
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "host", "database.example.com")
    goes_on = threading.Event()

    def hang(*_, **__):
        goes_on.wait(30)
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    found, seconds = timed(lambda: look_up.first_row(ASKED))
    goes_on.set()
    assert isinstance(found, OperationalError)
    assert seconds <= IN_TIME


def test_what_went_wrong_after_all_is_no_obstacle_to_the_next(look_up, move, monkeypatch):
    monkeypatch.setattr(prepared, "ANSWER_SECONDS", 0.3)
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict["OPTIONS"], "port", "1")
        connection.close()
        for _ in range(2):
            assert isinstance(timed(lambda: look_up.first_row(ASKED))[0], OperationalError)
    assert look_up.first_row(ASKED) == ("Octo-Org",)


def test_an_attempt_without_an_end_is_not_waited_for_forever(look_up, monkeypatch):
    monkeypatch.setattr(prepared, "ANSWER_SECONDS", 0.5)
    goes_on = threading.Event()
    with monkeypatch.context() as hanging:
        hanging.setattr(type(connection._connections["default"]), "connect", lambda self: goes_on.wait(30))
        connection.close()
        assert isinstance(timed(lambda: look_up.first_row(ASKED))[0], OperationalError)
    stuck = look_up._connecting._attempt
    assert isinstance(timed(lambda: look_up.first_row(ASKED))[0], OperationalError)
    assert look_up._connecting._attempt is stuck
    monkeypatch.setattr(connecting, "STUCK_SECONDS", 0.0)
    monkeypatch.setattr(prepared, "ANSWER_SECONDS", 30)
    assert look_up.first_row(ASKED) == ("Octo-Org",)
    goes_on.set()
    assert stuck.is_over.wait(30)


def test_without_a_thread_the_connection_is_made_all_the_same(look_up, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    connection.close()
    assert look_up.first_row(ASKED) == ("Octo-Org",)


def test_the_first_connection_of_a_process_is_made_as_well(look_up, monkeypatch):
    # Then alone, Django asks the server for its version, on the thread that connects.
    monkeypatch.setattr(base, "RAN_DB_VERSION_CHECK", set())
    connection.close()
    assert look_up.first_row(ASKED) == ("Octo-Org",)
