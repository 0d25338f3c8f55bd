"""A page that asks too much of the database is ended, and says so; nobody else's statement is."""

import time

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import Role
from policystore.audit_log import export, history
from policystore.db import statement_timeout
from policystore.policies.core import queries
from policystore.policies.models import Policy
from policystore.policies.pages import editing
from policystore.web import csv_export, error_pages
from policystore.web.middleware import PageTimeout
from tests import factories

pytestmark = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {end}) SELECT max(i) FROM n"
SLOW = {
    "sqlite": COUNT.format(end=2_000_000_000),
    "postgresql": "SELECT pg_sleep(30)",
}
LIMIT = 0.3


def ask_much(*given, **more):
    """As a query does that no index helps."""
    with connection.cursor() as cursor:
        cursor.execute(SLOW[connection.vendor])
        return cursor.fetchall()


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization, monkeypatch):
    """A browser before a store whose pages have little time."""
    client = Client(raise_request_exception=False)
    client.force_login(factories.member(organization, Role.OWNER), backend="policystore.accounts.access.RoleBackend")
    monkeypatch.setattr(settings, "PAGE_SECONDS", LIMIT)
    monkeypatch.setattr(settings, "CHANGE_SECONDS", 2 * LIMIT)
    return client


def address(name):
    return reverse(f"policies:{name}", args=["octo-org"])


@committed
def test_a_page_that_reads_too_long_is_ended_and_says_what_to_do(ann, monkeypatch):
    monkeypatch.setattr(queries, "list_page", ask_much)
    began = time.monotonic()
    answer = ann.get(address("list"))
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer["Retry-After"]) == (503, "10")
    assert "<h1>This takes too long</h1>" in answer.content.decode()
    assert "Narrow the search" in answer.content.decode()
    monkeypatch.undo()
    assert ann.get(address("list")).status_code == 200


def test_a_part_of_a_page_says_so_in_its_place(ann, monkeypatch):
    monkeypatch.setattr(queries, "list_page", ask_much)
    answer = ann.get(address("list"), headers={"HX-Request": "true"})
    assert (answer.status_code, answer["HX-Reswap"]) == (503, "innerHTML")
    part = answer.content.decode().strip()
    assert part.startswith('<div class="alert alert-warning" role="status">')
    assert part.endswith("</div>")
    assert "<p>Reading this took the database more than" in part


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("get", 'hx-get="/organizations/octo-org/policy-store/?q=a&amp;show=block"'),
        ("post", 'hx-post="/organizations/octo-org/policy-store/check/?q=a&amp;show=block"'),
    ],
)
def test_a_part_offers_to_be_asked_for_again(ann, monkeypatch, method, told):
    monkeypatch.setattr(queries, "list_page", ask_much)
    monkeypatch.setattr(editing, "_problems", ask_much)
    path = address("list" if method == "get" else "check") + "?q=a&show=block"
    headers = {"HX-Request": "true", "HX-Target": "policies"}
    part = getattr(ann, method)(path, headers=headers).content.decode()
    assert told in part
    assert 'hx-target="#policies" hx-swap="outerHTML"' in part
    assert ">Try again</button>" in part


@pytest.mark.parametrize("target", ["", "1", 'x" hx-on:load="', "a b"])
def test_a_part_whose_place_has_no_name_offers_nothing(rf, target):
    headers = {"HX-Request": "true", **({"HX-Target": target} if target else {})}
    answer = error_pages.out_of_time(rf.get("/", headers=headers))
    assert "Reading this took" in answer.content.decode()
    assert "<button" not in answer.content.decode()


def test_a_draft_that_is_looked_at_is_not_told_of_as_one_that_was_saved(ann, monkeypatch):
    monkeypatch.setattr(editing, "_problems", ask_much)
    answer = ann.post(address("check"), {"text": factories.TEXT}, headers={"HX-Request": "true"})
    assert answer.status_code == 503
    assert "Reading this took the database more than" in answer.content.decode()


@pytest.mark.parametrize(("seconds", "told"), [(1, "more than 1 second,"), (5, "more than 5 seconds,")])
def test_the_limit_is_told_in_words(seconds, told):
    assert told in render_to_string("out_of_time.html", {"is_reading": True, "seconds": seconds})


@committed
def test_a_change_that_takes_too_long_is_undone(ann, monkeypatch):
    monkeypatch.setattr(history, "record", ask_much)
    answer = ann.post(address("new"), {"name": "new", "text": factories.TEXT, "description": ""})
    assert answer.status_code == 503
    assert "Check the history before you try again" in answer.content.decode()
    assert not Policy.objects.exists()


@pytest.mark.parametrize(("path", "limits"), [("/", 1), ("/organizations/x/", 1), ("/v1", 0), ("/v1/x", 0)])
def test_what_runners_and_systems_ask_has_no_limit(rf, path, limits):
    seen = []
    PageTimeout(lambda request: seen.append(len(connection.execute_wrappers)))(rf.get(path))
    assert seen == [limits]
    assert connection.execute_wrappers == []


@committed
def test_what_comes_after_is_not_ended(db):
    with statement_timeout.timeout(LIMIT):
        with pytest.raises(OperationalError) as cut_off:
            ask_much()
        with pytest.raises(OperationalError) as refused:
            Policy.objects.count()
    assert statement_timeout.is_out_of_time(cut_off.value)
    assert statement_timeout.is_out_of_time(refused.value)
    with connection.cursor() as cursor:
        cursor.execute(COUNT.format(end=2_000_000))
        assert cursor.fetchone() == (2_000_000,)


def test_time_in_which_the_database_does_nothing_does_not_count(organization):
    with statement_timeout.timeout(LIMIT):
        Policy.objects.count()
        time.sleep(2 * LIMIT)
        assert Policy.objects.count() == 0


def test_other_failures_of_the_database_are_not_taken_for_it(organization):
    with pytest.raises(OperationalError) as raised, statement_timeout.timeout(LIMIT):
        raise OperationalError("the connection is closed")
    assert not statement_timeout.is_out_of_time(raised.value)
    assert not statement_timeout.is_out_of_time(None)


def test_an_export_is_whole_or_refused(ann, organization, monkeypatch):
    factories.policy(organization)
    whole = ann.get(address("export_history"))
    assert (whole.status_code, len(whole.getvalue().splitlines()) > 1) == (200, True)
    write = csv_export.in_file
    monkeypatch.setattr(csv_export, "in_file", lambda texts, seconds: write(texts, seconds=0))
    refused = ann.get(address("export_history") + "?format=jsonl")
    assert (refused.status_code, refused["Content-Type"]) == (503, "text/plain; charset=utf-8")
    assert "manage.py export_history --organization octo-org" in refused.content.decode()


def test_an_export_that_the_database_is_slow_for_is_refused(ann, organization, monkeypatch):
    monkeypatch.setattr(export, "rows", ask_much)
    assert ann.get(address("export_history")).status_code == 503
