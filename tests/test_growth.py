"""Pages of observed traffic ask the database as often with very many rows as with a few."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.roles import Role
from policystore.detections.models import Detection, SuppressionRule
from policystore.integrations import outbox
from policystore.integrations.models import Integration, OutboxMessage
from policystore.policies.models import Policy
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint, NetworkEvent, RunEndpoint
from tests import factories

pytestmark = pytest.mark.django_db

FEW, MANY = 3, 140
PAGES = [
    "runs:list",
    "runs:list?tag=blocked&q=repo",
    "runs:run",
    "runs:run?tab=blocked",
    "runs:of-policy",
    "runs:list?tag=enforcing",
    "baseline:organization",
    "baseline:organization?show=changelog",
    "baseline:organization?show=wildcards",
    "baseline:view?repository=repo-1",
    "baseline:repositories",
    "baseline:clusters",
    "baseline:jobs",
    "baseline:export",
    "baseline:create-policy",
    "insights",
    "insights?period=24h",
    "network-events",
    "network-events?by=endpoint",
    "network-events?endpoint=h1.example.com:443",
    "detections:of-run",
    "detections:list",
    "detections:list?by=endpoint",
    "detections:list?status=all&q=repo",
    "detections:detection",
    "detections:rules",
    "integrations:list",
    "integrations:view",
]


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.OWNER)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def fill(organization, policy, first, last):
    """A job run, an event, a detection, a rule, an integration and a message for each number."""
    now = timezone.now()
    served = {"policy_id": policy.pk, "policy_name": policy.name, "policy_version": 1, "egress_policy": "block"}
    for number in range(first, last):
        job = {"repository": f"repo-{number}", "workflow": "ci.yml", "job": f"job {number}", "cluster": f"k8s-{number}"}
        run = JobRun.objects.create(
            verified_by="key",
            organization=organization,
            run_id="1",
            correlation_id=str(number),
            first_seen_at=now,
            fetched_at=now,
            calls=3,
            blocked_calls=1,
            scope_key=f"repository:octo-org/repo-{number}",
            **served,
            **job,
        )
        seen = {"organization": organization, "host": f"h{number}.example.com", "port": 443}
        times = {"first_seen_at": now - timedelta(minutes=number), "last_seen_at": now}
        JobEndpoint.objects.create(**seen, **times, **job, calls=3, blocked_calls=1, runs=1)
        RunEndpoint.objects.create(**seen, **times, job_run=run, calls=3, blocked_calls=1)
        rule = SuppressionRule.objects.create(
            organization=organization, destination=f"d{number}", reason="x", created_at=now, created_by="ann"
        )
        events = [("a", run), ("b", JobRun.objects.first())]
        for digest, job_run in events:
            NetworkEvent.objects.create(
                **seen,
                job_run=job_run,
                digest=f"{digest}{number}",
                kind="connection",
                status="blocked",
                occurred_at=now,
                received_at=now,
                ancestry=[{"name": "curl"}],
            )
        Detection.objects.create(
            organization=organization, job_run=run, digest="d", detection_id=f"Found-{number}", at=now, rule=rule
        )
    factories.integration(organization, name=f"hook {first}")
    events = [outbox.Event("detection", {"n": n}) for n in range(first, last)]
    outbox.emit_all(organization=organization, events=events)
    OutboxMessage.objects.update(state="delivered")


def address(page):
    name, _, query = page.partition("?")
    ids = {
        "runs:run": JobRun,
        "runs:of-policy": Policy,
        "detections:of-run": JobRun,
        "detections:detection": Detection,
        "integrations:view": Integration,
    }
    arguments = [ids[name].objects.order_by("pk").first().pk] if name in ids else []
    return f"{reverse(name, args=['octo-org', *arguments])}?{query}"


def asked(client, page):
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address(page)).status_code == 200
    return len(queries)


def test_pages_ask_as_often_with_many_rows_as_with_few(organization, ann):
    policy = factories.policy(organization)
    fill(organization, policy, 0, FEW)
    for page in PAGES:
        # What is looked up once a session is looked up now.
        asked(ann, page)
    few = {page: asked(ann, page) for page in PAGES}
    fill(organization, policy, FEW, MANY)
    many = {page: asked(ann, page) for page in PAGES}
    assert {page: (few[page], many[page]) for page in PAGES if many[page] > few[page]} == {}
    assert max(many.values()) < 25
