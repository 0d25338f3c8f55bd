"""Membership is asked for again, and whoever is no member any more is out, in every browser."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts import github, vault
from policystore.accounts.actions import members
from policystore.accounts.models import AccountEvent, GitHubCredential, Membership, Role
from tests import factories

pytestmark = pytest.mark.django_db

PAGE = reverse("policies:list", args=["octo-org"])


class Answers:
    """What GitHub says next, and how often it was asked."""

    def __init__(self):
        self.next = [github.GitHubMembership("octo-org", is_admin=False)]
        self.asked = 0

    def __call__(self, token):
        self.asked += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


@pytest.fixture
def answers(monkeypatch, settings):
    settings.GITHUB_ALLOWED_ORGANIZATIONS = ["octo-org"]
    says = Answers()
    monkeypatch.setattr(github, "memberships", says)
    return says


@pytest.fixture
def person():
    member = factories.member(factories.organization("octo-org"), Role.SECURITY_ADMIN, "mona")
    Membership.objects.update(from_github=True)
    credential = vault.encrypt("token")
    GitHubCredential.objects.create(user=member, encrypted_token=credential, checked_at=timezone.now())
    return member


def browser_of(person):
    client = Client()
    client.force_login(person, backend="policystore.accounts.backends.RoleBackend")
    return client


def later(minutes):
    GitHubCredential.objects.update(checked_at=timezone.now() - timedelta(minutes=minutes))


def test_within_fifteen_minutes_github_is_not_asked_again(answers, person):
    later(14)
    assert browser_of(person).get(PAGE).status_code == 200
    assert answers.asked == 0


def test_after_fifteen_minutes_it_is_asked_once(answers, person):
    later(16)
    browser = browser_of(person)
    assert [browser.get(PAGE).status_code for _ in range(3)] == [200, 200, 200]
    assert answers.asked == 1
    assert Membership.objects.get().role == Role.SECURITY_ADMIN


def test_whoever_left_is_signed_out_and_it_is_recorded(answers, person):
    answers.next = []
    later(16)
    browser = browser_of(person)
    assert browser.get(PAGE).status_code == 302
    assert browser.get(PAGE).headers["location"].startswith("/sign-in/")
    assert not Membership.objects.exists()
    assert AccountEvent.objects.get().kind == "member left"


def test_a_refused_token_ends_every_session_and_keeps_the_role_for_later(answers, person):
    answers.next = github.TokenRefused("revoked")
    later(16)
    first, second = browser_of(person), browser_of(person)
    assert first.get(PAGE).status_code == 302
    assert second.get(PAGE).status_code == 302
    assert answers.asked == 1
    assert Membership.objects.get().role == Role.SECURITY_ADMIN


def test_while_github_is_away_people_wait(answers, person):
    answers.next = github.GitHubAway("away")
    later(16)
    browser = browser_of(person)
    away = browser.get(PAGE)
    assert (away.status_code, away["HX-Retarget"]) == (503, "body")
    answers.next = [github.GitHubMembership("octo-org", is_admin=False)]
    assert browser.get(PAGE).status_code == 200


def test_a_key_that_was_lost_signs_people_out_and_nothing_breaks(answers, person, settings):
    later(16)
    settings.ENCRYPTION_KEYS = ["another key altogether"]
    assert browser_of(person).get(PAGE).status_code == 302


def test_github_gives_new_members_a_role_and_leaves_given_ones(answers):
    user = factories.user("mona")
    organizations = {"Octo-Org": True, "other": True}
    assert members.follow_github(user=user, token="t", organizations=organizations, allowed=["octo-org"]) == 1
    membership = Membership.objects.get()
    assert (membership.organization.key, membership.role) == ("octo-org", Role.OWNER)
    Membership.objects.update(role=Role.AUDITOR)
    members.follow_github(user=user, token="t", organizations=organizations, allowed=["octo-org"])
    assert Membership.objects.get().role == Role.AUDITOR
