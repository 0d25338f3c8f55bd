"""The demo organization: everything that a person who tries the store looks at has something to show."""

import re

import pytest
from django.db import transaction
from django.test import Client
from django.urls import resolve, reverse

from policystore.accounts.models import Role
from policystore.audit_log.models import HistoryEvent
from policystore.demo import data
from policystore.policies import compiler
from policystore.policies.models import Attachment, Policy, StagedVersion
from policystore.policy_language.scopes import Scope, ScopeType
from policystore.runners.models import JobRun
from tests import factories

pytestmark = pytest.mark.django_db

# One page of each kind is enough; what these lead to is made of rows of the same kind.
PAGES_OF_A_KIND = 3
# Nothing is sent anywhere by a store that nobody has set up for it.
MAY_BE_EMPTY = {"integrations:list"}


@pytest.fixture(scope="module")
def loaded(django_db_setup, django_db_blocker):
    """The demo organization, loaded once: 3 s of CPU time. What a test adds is rolled back after the test."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield data.load()
        transaction.set_rollback(True)


@pytest.fixture
def organization(loaded, db):
    return loaded


@pytest.fixture
def browser(organization):
    client = Client()
    client.force_login(factories.member(organization, Role.OWNER))
    return client


def test_every_document_is_valid_and_what_runners_get_is_made_of_it(organization):
    policies = Policy.objects.filter(organization=organization)
    assert policies.count() >= 20
    for policy in policies:
        with_rules = compiler.for_text(organization, policy.text)
        checked = with_rules.check(policy.text)
        assert not checked.errors, (policy.name, checked.errors)
        served = policy.reply
        compiler.fill(policy, document=checked.document, with_rules=with_rules)
        assert policy.reply == served, policy.name


def test_policies_stand_at_all_four_scopes(organization):
    types = {Scope.from_key(key).type for key in Attachment.objects.values_list("scope_key", flat=True)}
    assert types == set(ScopeType)
    attached = Attachment.objects.values("policy_id")
    assert Policy.objects.exclude(pk__in=attached).exists()
    assert {policy.egress_policy for policy in Policy.objects.all()} == {"audit", "block"}


def test_the_history_is_spread_over_days_and_tells_of_every_kind_of_change(organization):
    events = HistoryEvent.objects.filter(owner=organization.key)
    assert {event.kind for event in events} >= {"created", "updated", "attached", "detached"}
    assert len({event.at.date() for event in events}) > 10
    assert len({event.actor for event in events}) > 2
    times = list(events.order_by("pk").values_list("at", flat=True))
    assert times == sorted(times)


def test_job_runs_name_the_policy_that_was_served(organization):
    runs = JobRun.objects.filter(organization=organization)
    assert runs.count() >= 100
    names = set(Policy.objects.values_list("name", flat=True))
    assert {run.policy_name for run in runs} <= names
    assert runs.filter(calls__gt=0).exists()
    assert runs.filter(blocked_calls__gt=0).exists()
    version = StagedVersion.objects.get(policy__organization=organization)
    assert runs.filter(staged_event_id=version.event_id).exists()


def links(html):
    found = re.findall(r'href="(/organizations/[^"#]+)"', html)
    return [link.replace("&amp;", "&") for link in dict.fromkeys(found)]


def crawl(browser, start):
    """Every page that can be reached by links, a few of each kind; yields kind, address and text."""
    waiting, seen, of_a_kind = [start], {start}, {}
    while waiting:
        address = waiting.pop(0)
        kind = resolve(address.partition("?")[0]).view_name
        of_a_kind[kind] = of_a_kind.get(kind, 0) + 1
        if of_a_kind[kind] > PAGES_OF_A_KIND:
            continue
        answer = browser.get(address)
        assert answer.status_code == 200, (address, answer.status_code)
        if "text/html" not in answer["content-type"]:
            continue
        html = answer.content.decode()
        yield kind, address, html
        fresh = [link for link in links(html) if link not in seen]
        seen.update(fresh)
        waiting.extend(fresh)


def test_every_page_that_can_be_reached_has_something_to_show(browser):
    start = reverse("policies:list", args=[data.OWNER])
    shown = {}
    for kind, address, html in crawl(browser, start):
        # A filter or search may find nothing; the page as the sidebar leads to it may not.
        if "?" not in address and 'class="card empty"' in html:
            assert kind in MAY_BE_EMPTY, address
        shown.setdefault(kind, address)
    assert len(shown) > 20, sorted(shown)


def test_each_mode_and_type_of_scope_is_in_the_list_of_policies(browser):
    html = browser.get(reverse("policies:list", args=[data.OWNER])).content.decode()
    for words in ("Organization", "clusters", "1 repository", "Not attached", "org-default"):
        assert words in html, words
