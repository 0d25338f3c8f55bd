"""The fetch's statement outside of a transaction, as in production: prepared once, and tried again when dropped."""

import gc
from types import SimpleNamespace

import pytest
from django.db import Error, OperationalError, connection, connections

from policystore.documents.scopes import Scope
from policystore.policies.actions import attachments
from policystore.runners import prepared
from policystore.runners.prepared import Prepared
from tests import factories
from tests.runners.asking import before_django, through_django

pytestmark = pytest.mark.django_db(transaction=True)

STATEMENT = "SELECT o.id, o.login, o.key FROM inventory_organization o WHERE o.key = %(key)s AND o.login <> %(other)s"
TARGET = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml"


@pytest.fixture
def organization():
    return factories.organization("Octo-Org")


@pytest.fixture
def look_up():
    return Prepared("test", STATEMENT)


def drop():
    """End the connection as a database does that is restarted."""
    if connection.vendor == "sqlite":
        connection.connection.close()
        return
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_it_finds_the_row_again_and_again(organization, look_up):
    for _ in range(3):
        assert look_up.first_row({"key": "octo-org", "other": ""}) == (organization.pk, "Octo-Org", "octo-org")
        assert look_up.first_row({"key": "nobody", "other": ""}) is None


def test_it_is_prepared_anew_on_a_new_connection(organization, look_up):
    look_up.first_row({"key": "octo-org", "other": ""})
    connection.close()
    assert look_up.first_row({"key": "octo-org", "other": ""}) == (organization.pk, "Octo-Org", "octo-org")


def held():
    """How many connections there are, also closed ones that somebody still holds."""
    gc.collect()
    return sum(type(thing) is type(connection.connection) for thing in gc.get_objects())


def test_connections_of_the_past_are_let_go(organization, look_up):
    look_up.first_row({"key": "octo-org", "other": ""})
    before = held()
    for _ in range(3):
        connection.close()
        assert look_up.first_row({"key": "octo-org", "other": ""})
    assert held() == before


def test_a_dropped_connection_is_met_by_a_new_one(organization, look_up):
    look_up.first_row({"key": "octo-org", "other": ""})
    drop()
    for _ in range(2):
        assert look_up.first_row({"key": "octo-org", "other": ""}) == (organization.pk, "Octo-Org", "octo-org")


def test_a_statement_that_the_server_forgot_is_prepared_anew(organization, look_up):
    look_up.first_row({"key": "octo-org", "other": ""})
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")
    for _ in range(2):
        assert look_up.first_row({"key": "octo-org", "other": ""}) == (organization.pk, "Octo-Org", "octo-org")


def test_a_database_that_is_away_is_told_as_djangos_error(look_up, monkeypatch):
    connection.close()

    def refuse(self):
        raise OperationalError("connection refused")

    monkeypatch.setattr(type(connections["default"]), "connect", refuse)
    with pytest.raises(Error):
        look_up.first_row({"key": "octo-org", "other": ""})


@pytest.mark.parametrize("ask", [through_django, before_django])
def test_a_fetch_outlives_a_dropped_connection_and_remembers_while_the_database_is_away(organization, ask, monkeypatch):
    policy = factories.policy(organization)
    attachments.modify(policy=policy, add=[Scope.for_organization("octo-org")], by=factories.SYSTEM)
    bearer = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    first = ask("GET", TARGET, bearer)
    drop()
    again = ask("GET", TARGET, bearer)
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert "policy-store-answer" not in again.headers
    connection.close()

    def refuse(self):
        raise OperationalError("connection refused")

    monkeypatch.setattr(type(connections["default"]), "connect", refuse)
    away = ask("GET", TARGET, bearer)
    assert (away.status, away.body, away.headers["policy-store-answer"]) == (200, first.body, "remembered")


class Slow:
    """A database whose next answers take so many seconds each, or none at all, by a clock that the test turns."""

    def __init__(self, look_up, monkeypatch):
        self.now, self.takes, self.asked = 1000.0, [], 0
        self._straight = look_up._straight[connection.vendor]
        monkeypatch.setattr(prepared, "time", SimpleNamespace(monotonic=lambda: self.now))
        look_up._straight[connection.vendor] = self._answer

    def _answer(self, raw, parameters, until):
        self.asked += 1
        if self.takes:
            self.now += self.takes.pop(0)
            raise OperationalError("no answer")
        return self._straight(raw, parameters, until)


ASKED = {"key": "octo-org", "other": ""}


@pytest.fixture
def slow(organization, look_up, monkeypatch):
    look_up.first_row(ASKED)
    return Slow(look_up, monkeypatch)


def test_whoever_can_do_without_waits_for_no_new_connection_right_after_an_old_one_was_given_up(look_up, slow):
    slow.takes = [1.0]
    with pytest.raises(OperationalError):
        look_up.first_row(ASKED, has_other=lambda: True)
    slow.now += prepared.SHORT_REST_SECONDS - 0.01
    with pytest.raises(OperationalError):
        look_up.first_row(ASKED, has_other=lambda: True)
    assert slow.asked == 1
    slow.now += 0.02
    assert look_up.first_row(ASKED, has_other=lambda: True)


def test_a_new_connection_that_answers_ends_it_for_all(look_up, slow):
    slow.takes = [1.0]
    with pytest.raises(OperationalError):
        look_up.first_row(ASKED, has_other=lambda: True)
    assert look_up.first_row(ASKED)
    assert look_up.first_row(ASKED, has_other=lambda: True)


def test_nobody_waits_again_soon_where_a_new_connection_gets_no_answer(look_up, slow):
    slow.takes = [1.0, 1.0]
    for _ in range(2):
        with pytest.raises(OperationalError):
            look_up.first_row(ASKED)
    slow.now += prepared.REST_SECONDS - 0.01
    for has_other in (True, False):
        with pytest.raises(OperationalError):
            look_up.first_row(ASKED, has_other=lambda has_other=has_other: has_other)
    assert slow.asked == 2
    slow.now += 0.02
    assert look_up.first_row(ASKED)


def test_a_connection_that_fails_late_leaves_no_time_for_a_new_one(look_up, slow):
    slow.takes = [prepared.RETRY_WITHIN_SECONDS - 0.01]
    assert look_up.first_row(ASKED)
    slow.takes = [prepared.RETRY_WITHIN_SECONDS]
    with pytest.raises(OperationalError):
        look_up.first_row(ASKED)


def test_a_new_connection_has_what_is_left_of_the_time(look_up, slow):
    told = []
    slow._straight = lambda raw, parameters, until: told.append(until)
    slow.takes = [0.4]
    look_up.first_row(ASKED)
    assert told == [1000.0 + prepared.ANSWER_SECONDS]
