"""The fetch's statement outside of a transaction, as in production: prepared once, and tried again when dropped."""

import gc

import pytest
from django.db import Error, OperationalError, connection, connections

from policystore.documents.scopes import Scope
from policystore.policies.actions import attachments
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

    def refuse():
        raise OperationalError("connection refused")

    monkeypatch.setattr(connections["default"], "connect", refuse)
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

    def refuse():
        raise OperationalError("connection refused")

    monkeypatch.setattr(connections["default"], "connect", refuse)
    away = ask("GET", TARGET, bearer)
    assert (away.status, away.body, away.headers["policy-store-answer"]) == (200, first.body, "remembered")
