"""A form that is sent after the session or its token has ended: nothing is saved, and no text is lost."""

from __future__ import annotations

import re
from html import escape

import pytest
from django.test import Client

from policystore.accounts import kept_forms
from policystore.integrations.forms import FORMS
from policystore.policies.models import Policy
from tests import factories

TEXT = "egress-policy: audit\nallowed-endpoints: >\n  github.com:443\n"
OWN = {"Origin": "http://testserver"}
FIELDS = {"name": "ci", "description": "Kept <b>too</b>", "text": TEXT}


@pytest.fixture
def new_policy(db):
    organization = factories.organization()
    factories.member(organization)
    return f"/organizations/{organization.key}/policy-store/new/"


def token_in(page):
    return re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page.content.decode())[1]


@pytest.fixture
def browser(new_policy):
    client = Client(enforce_csrf_checks=True)
    client.force_login(factories.User.objects.get(username="ann"))
    client.token = token_in(client.get(new_policy))
    return client


def send(browser, path, **fields):
    return browser.post(path, {**FIELDS, "csrfmiddlewaretoken": browser.token, **fields}, headers=OWN)


def test_a_form_whose_session_has_ended_is_sent_again_after_the_sign_in(browser, new_policy):
    person = factories.User.objects.get(username="ann")
    browser.cookies.pop("sessionid")
    answer = send(browser, new_policy)
    page = answer.content.decode()
    assert answer.status_code == 401
    assert "Your session has ended" in page
    assert f"{escape(TEXT)}</textarea>" in page
    assert "Kept &lt;b&gt;too&lt;/b&gt;" in page
    assert '<input type="hidden" name="name" value="ci">' in page
    assert f'action="{new_policy}"' in page
    assert not Policy.objects.exists()
    browser.token = token_in(answer)
    # In another tab. Signing in changes the token, as the sign-in page does.
    browser.force_login(person)
    browser.cookies["csrftoken"] = "x" * 32
    expired = send(browser, new_policy)
    assert expired.status_code == 403
    assert "The form has expired" in expired.content.decode()
    assert f"{escape(TEXT)}</textarea>" in expired.content.decode()
    browser.token = token_in(expired)
    assert send(browser, new_policy).status_code == 302
    assert Policy.objects.get().description == "Kept <b>too</b>"


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_the_form_of_another_site_is_not_kept(browser, new_policy, headers):
    answer = browser.post(new_policy, {**FIELDS, "csrfmiddlewaretoken": "x" * 64}, headers=headers)
    assert answer.status_code == 403
    assert "github.com" not in answer.content.decode()
    browser.cookies.pop("sessionid")
    answer = browser.post(new_policy, {**FIELDS, "csrfmiddlewaretoken": browser.token}, headers=headers)
    assert answer.status_code in (302, 403)
    assert "github.com" not in answer.content.decode()


def test_secrets_are_not_kept(browser, new_policy):
    browser.cookies.pop("sessionid")
    page = send(browser, new_policy, bot_token="xoxb-1-secret").content.decode()
    assert "Secrets are not kept." in page
    assert "xoxb-1-secret" not in page


def test_every_secret_field_of_a_form_is_left_out():
    every = [field for form in FORMS.values() for field in form.base_fields.items()]
    hidden = {name for name, field in every if field.widget.attrs.get("autocomplete") == "off"}
    assert hidden == set(kept_forms.SECRETS)


def test_a_part_of_a_page_says_that_the_session_has_ended(browser, new_policy):
    browser.cookies.pop("sessionid")
    assert browser.get(new_policy, headers={"HX-Request": "true"}).status_code == 401
    assert browser.get(new_policy).status_code == 302
