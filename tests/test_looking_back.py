"""Searches that no index answers look through so much at once, and say so: nothing that fits is left out unsaid."""

import html
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.accounts.roles import Role
from policystore.detections.models import Detection
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.web import pagination
from tests import factories

pytestmark = pytest.mark.django_db

MORE = "Look further back"
# Each with what stands on the page that has found the oldest.
SEARCHES = {
    "runs:list?q=needle": "needle-0",
    "runs:list?q=needle&repository=needle-0": "needle-0",
    "runs:list?workflow=needle.yml&tag=no-policy": "needle-0",
    "detections:list?q=needle": "Needle 0",
    "policies:organization_history?scope=needle-0": "needle-0",
}


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(pagination, "ROWS_LOOKED_THROUGH", 4)


@pytest.fixture
def organization():
    """In it, what is looked for happened first, and nine others after it."""
    made, other = factories.organization("octo-org"), factories.organization("other-org")
    policy = factories.policy(made)
    for number in range(10):
        word = "hay" if number else "needle"
        for owner in (made, other):
            run = JobRun.objects.create(
                verified_by="key",
                organization=owner,
                repository=f"{word}-{number}",
                workflow=f"{word}.yml",
                run_id="1",
                correlation_id=f"{number}",
                first_seen_at=timezone.now(),
            )
        scope = Scope.for_repository("octo-org", f"{word}-{number}")
        attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=Actor("ann"))
        Detection.objects.create(
            organization=made,
            job_run=JobRun.objects.get(organization=made, pk=run.pk - 1),
            digest=str(number),
            detection_id=f"{word.title()}-{number}",
            detail=word,
            at=timezone.now(),
        )
    return made


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.OWNER)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def address(page):
    name, _, query = page.partition("?")
    return f"{reverse(name, args=['octo-org'])}?{query}"


def further(text):
    found = re.search(rf'href="([^"]+)">{MORE}', text)
    return html.unescape(found[1]) if found else None


@pytest.mark.parametrize("page", SEARCHES)
def test_what_is_far_back_is_found_step_by_step(ann, page):
    here, steps, text = address(page), 0, ""
    while True:
        answer = ann.get(here)
        assert answer.status_code == 200
        text, steps = answer.content.decode(), steps + 1
        if not (link := further(text)):
            break
        assert "the newest first" in text
        here = here.partition("?")[0] + link
    assert SEARCHES[page] in re.sub(r"<form.*?</form>", "", text, count=1, flags=re.S)
    assert "other-org" not in text
    assert steps > 1 or "repository=" in page


@pytest.mark.parametrize("page", SEARCHES)
def test_a_search_is_as_many_statements_however_little_it_finds(ann, page):
    ann.get(address(page))
    with CaptureQueriesContext(connection) as first:
        ann.get(address(page))
    with CaptureQueriesContext(connection) as second:
        ann.get(address(page).replace("needle", "xylophone"))
    assert len(second) <= len(first) + 1
    assert len(second) < 25


def test_what_an_index_finds_is_not_looked_for_in_steps(ann):
    for page in (
        "runs:list",
        "detections:list",
        "policies:organization_history",
        "policies:organization_history?kind=created",
    ):
        assert MORE not in ann.get(address(page)).content.decode()
