"""Sessions as a browser and the database have them."""

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from policystore.accounts.roles import Role
from policystore.accounts.sessions import SessionStore
from tests import factories

pytestmark = pytest.mark.django_db
BACKEND = "policystore.accounts.access.RoleBackend"


@pytest.fixture
def browser():
    client = Client()
    client.force_login(factories.member(factories.organization(), Role.OWNER), backend=BACKEND)
    return client


def key_of(client):
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def opens(key):
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = key
    return client.get(reverse("policies:list", args=["octo-org"])).status_code == 200


def test_the_key_opens_pages_and_is_not_in_the_database(browser):
    (kept,) = Session.objects.all()
    assert opens(key_of(browser))
    assert key_of(browser) not in (kept.session_key, *kept.get_decoded().values())


def test_what_the_database_keeps_opens_nothing(browser):
    (kept,) = Session.objects.all()
    assert not opens(kept.session_key)


def test_a_row_that_has_its_key_in_clear_opens_nothing(browser):
    Session.objects.update(session_key=key_of(browser))
    assert not opens(key_of(browser))


def test_signing_out_deletes_it(browser):
    key = key_of(browser)
    browser.post(reverse("sign-out"))
    assert not opens(key)
    assert not Session.objects.exists()


def test_a_new_key_replaces_the_old_one(browser):
    key, session = key_of(browser), browser.session
    session.cycle_key()
    assert session.session_key != key
    assert (opens(key), opens(session.session_key)) == (False, True)
    assert Session.objects.count() == 1


def test_an_ended_session_opens_nothing_and_is_cleared(browser):
    Session.objects.update(expire_date="2020-01-01T00:00:00Z")
    assert not opens(key_of(browser))
    SessionStore.clear_expired()
    assert not Session.objects.exists()


@pytest.mark.parametrize("key", ["", "short", "x" * 32, "ä" * 32, "\udc80" * 32, "x" * 5000])
def test_any_other_key_opens_nothing(browser, key):
    assert not SessionStore(key).load()
