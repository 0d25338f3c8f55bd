"""Membership is checked again: only a definite no of GitHub's signs a person out, in every browser."""

from datetime import timedelta

import pytest
import requests
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts import members
from policystore.accounts.models import SYSTEM, AccountEvent, Actor, FormerMember, GitHubCredential, Membership
from policystore.accounts.roles import Role
from tests.accounts import fake_github
from tests.accounts.fake_github import MEMBERSHIPS, sign_in

pytestmark = pytest.mark.django_db

MONA, OLGA = 7, 8
PAGE = reverse("policies:list", args=["octo-org"])
ALONE = f"{MEMBERSHIPS}/octo-org"


@pytest.fixture
def github(monkeypatch, settings):
    github = fake_github.install(monkeypatch, settings)
    github.person(MONA, "mona")
    github.join(MONA, 1)
    github.person(OLGA, "olga")
    github.join(OLGA, 1, "admin")
    return github


@pytest.fixture
def browser(github):
    """Of Mona, a security admin, who has just signed in."""
    client, _ = sign_in(MONA)
    Membership.objects.update(role=Role.SECURITY_ADMIN)
    github.asked.clear()
    return client


def later(minutes=16):
    GitHubCredential.objects.update(checked_at=timezone.now() - timedelta(minutes=minutes))


def role_of(github_id):
    membership = Membership.objects.filter(user__github_id=github_id).first()
    return membership and membership.role


def test_within_fifteen_minutes_github_is_not_asked_again(github, browser):
    later(14)
    assert browser.get(PAGE).status_code == 200
    assert github.asked == []


def test_after_fifteen_minutes_it_is_asked_once(github, browser):
    later()
    assert [browser.get(PAGE).status_code for _ in range(3)] == [200, 200, 200]
    assert github.asked == [MEMBERSHIPS]
    assert role_of(MONA) == Role.SECURITY_ADMIN


def test_whoever_left_is_signed_out_and_it_is_recorded(github, browser):
    github.leave(MONA, 1)
    later()
    assert browser.get(PAGE).status_code == 302
    assert browser.get(PAGE).headers["location"].startswith("/sign-in/")
    assert role_of(MONA) is None
    assert github.asked == [MEMBERSHIPS, ALONE]
    assert AccountEvent.objects.last().kind == "member left"


def test_an_invitation_that_waits_is_no_membership(github, browser):
    github.join(MONA, 1, state="pending")
    later()
    assert browser.get(PAGE).status_code == 302
    assert role_of(MONA) is None


UNDECIDED = {
    "rate limit": {"status": 403, "x_ratelimit_remaining": "0", "body": '{"message": "API rate limit exceeded"}'},
    "secondary rate limit": {"status": 403, "retry_after": "60"},
    "too many requests": {"status": 429},
    "single sign-on": {"status": 403, "x_github_sso": "required; url=https://github.com/orgs/octo-org/sso"},
    "app not approved": {"status": 403, "body": '{"message": "OAuth App access restrictions"}'},
    "server error": {"status": 500},
    "bad gateway": {"status": 502, "body": "<html>"},
    "unavailable": {"status": 503},
    "redirect": {"status": 301, "body": '{"message": "Moved Permanently"}'},
    "not found": {"status": 404},
    "timeout": {"status": requests.Timeout()},
    "no connection": {"status": requests.ConnectionError()},
    "no JSON": {"status": 200, "body": "<html>"},
    "cut off": {"status": 200, "body": '[{"state": "act'},
    "deep": {"status": 200, "body": "[" * 100_000},
    "no list": {"status": 200, "body": '{"message": "hello"}'},
    "no memberships": {"status": 200, "body": "[1]"},
    "no id": {"status": 200, "body": '[{"state": "active", "organization": {"login": "octo-org"}}]'},
    "hidden by single sign-on": {
        "status": 200,
        "body": "[]",
        "x_github_sso": "partial-results; organizations=21955855,1",
    },
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_pages_wait_for_a_definite_answer(github, browser, name):
    later()
    github.fail(**UNDECIDED[name])
    answer = browser.get(PAGE)
    assert (answer.status_code, answer["HX-Retarget"], answer["Retry-After"]) == (503, "body", "10")
    assert "Membership not confirmed" in answer.content.decode()
    assert role_of(MONA) == Role.SECURITY_ADMIN
    github.recover()
    assert browser.get(PAGE).status_code == 200


@pytest.mark.parametrize("name", [name for name in UNDECIDED if name not in ("not found", "no list", "no memberships")])
def test_pages_wait_where_only_the_confirmation_is_undecided(github, browser, name):
    """The list leaves the organization out, as for an OAuth app that it has not approved."""
    later()
    github.fail(200, body="[]")
    answer = dict(UNDECIDED[name])
    if name == "hidden by single sign-on":
        answer = {"status": 403, "x_github_sso": "required"}
    github.fail(path=ALONE, **answer)
    assert browser.get(PAGE).status_code == 503
    assert role_of(MONA) == Role.SECURITY_ADMIN


def test_a_membership_that_the_list_forgot_is_kept(github, browser):
    later()
    github.fail(200, body="[]")
    assert browser.get(PAGE).status_code == 200
    assert github.asked == [MEMBERSHIPS, ALONE]


def test_who_waits_can_sign_out_or_sign_in_again(github, browser):
    later()
    github.fail(403, x_github_sso="required")
    page = browser.get(PAGE).content.decode()
    assert "single sign-on" in page
    assert 'action="/auth/github/login/"' in page
    github.recover()
    sign_in(MONA, browser)
    assert browser.get(PAGE).status_code == 200
    later()
    github.fail(500)
    assert browser.post(reverse("sign-out")).status_code == 302


@pytest.mark.parametrize("name", ["rate limit", "single sign-on", "timeout", "deep", "no id"])
def test_signing_in_waits_for_a_definite_answer(github, name):
    github.fail(**UNDECIDED[name])
    client, answer = sign_in(MONA)
    assert answer.status_code == 503
    assert client.get(PAGE).status_code == 302
    assert role_of(MONA) is None


def test_signing_in_says_that_single_sign_on_hides_the_organization(github):
    github.fail(200, body="[]")
    github.fail(403, path=ALONE, x_github_sso="required; url=https://github.com/orgs/octo-org/sso")
    _, answer = sign_in(MONA)
    assert answer.status_code == 503
    assert "single sign-on" in answer.content.decode()


def test_a_refused_token_ends_every_session_and_keeps_the_role_for_later(github, browser):
    second, _ = sign_in(MONA)
    github.asked.clear()
    github.fail(401)
    later()
    assert browser.get(PAGE).status_code == 302
    assert second.get(PAGE).status_code == 302
    assert github.asked == [MEMBERSHIPS]
    assert role_of(MONA) == Role.SECURITY_ADMIN


def test_a_key_that_was_lost_signs_people_out_and_nothing_breaks(github, browser, settings):
    later()
    settings.ENCRYPTION_KEYS = ["another key altogether"]
    assert browser.get(PAGE).status_code == 302


def test_runners_and_strangers_are_not_looked_up(github, browser):
    later()
    github.fail(500)
    assert Client().get("/sign-in/").status_code == 200
    assert browser.get("/healthz").status_code == 200
    assert github.asked == []


def test_a_removed_member_stays_out_until_an_owner_adds_them(github, browser):
    owner, _ = sign_in(OLGA)
    members.remove(membership=Membership.objects.get(user__github_id=MONA), by=Actor("olga"))
    later()
    answer = browser.get(PAGE)
    assert answer.status_code == 403
    assert "An owner of octo-org removed you" in answer.content.decode()
    assert browser.get(PAGE).status_code == 302
    for _ in range(2):
        client, answer = sign_in(MONA)
        assert answer.status_code == 403
        assert client.get(PAGE).status_code == 302
    assert role_of(MONA) is None
    former = FormerMember.objects.get()
    address = reverse("settings:add-back", args=["octo-org", former.pk])
    assert owner.post(address, {"role": "auditor"}).status_code == 302
    assert sign_in(MONA)[0].get(PAGE).status_code == 200
    assert role_of(MONA) == Role.AUDITOR


def test_a_demoted_administrator_stays_demoted(github):
    olga, _ = sign_in(OLGA)
    assert role_of(OLGA) == Role.OWNER
    sign_in(MONA)
    Membership.objects.filter(user__github_id=MONA).update(role=Role.OWNER)
    members.change_role(membership=Membership.objects.get(user__github_id=OLGA), role=Role.AUDITOR, by=SYSTEM)
    later()
    assert olga.get(PAGE).status_code == 200
    sign_in(OLGA)
    assert role_of(OLGA) == Role.AUDITOR
    # Nor does leaving the organization on GitHub and coming back as its administrator help.
    github.leave(OLGA, 1)
    assert sign_in(OLGA)[1].status_code == 403
    github.join(OLGA, 1, "admin")
    sign_in(OLGA)
    assert role_of(OLGA) == Role.AUDITOR


def test_who_comes_back_as_an_ordinary_member_is_no_owner_any_more(github):
    sign_in(OLGA)
    github.leave(OLGA, 1)
    sign_in(OLGA)
    github.join(OLGA, 1)
    sign_in(OLGA)
    assert role_of(OLGA) == Role.AUDITOR
