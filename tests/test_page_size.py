"""Each list is at most 60 kB of HTML with a page full of rows whose names are as long as names are."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.accounts.roles import Role
from policystore.detections.models import Detection, SuppressionRule
from policystore.integrations import outbox
from policystore.inventory.models import Repository, Workflow
from policystore.policies import break_glass
from policystore.policies.approvals import commands
from policystore.policies.approvals import requests as change_requests
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import NeverAllowHost
from policystore.policy_language.scopes import Scope
from policystore.runners.models import BlocklistEntry, JobRun, LastFetch
from policystore.traffic.models import JobEndpoint, NetworkEvent
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
REASON = "Our registry of images is the only one that builds may use."
MOST_BYTES = 60_000
ROWS = 51
PAGES = [
    "policies:list",
    "policies:history",
    "policies:organization_history",
    "policies:account_history",
    "policies:versions",
    "policies:change-requests",
    "policies:break_glass",
    "endpoint-sets:list",
    "baseline:organization",
    "baseline:organization?show=changelog",
    "baseline:repositories",
    "baseline:clusters",
    "baseline:jobs",
    "coverage",
    "runs:list",
    "runs:run",
    "insights",
    "network-events",
    "detections:list?status=all",
    "detections:rules",
    "settings:members",
    "settings:inventory",
    "settings:management-keys",
    "never-allow:list",
    "runners-settings:blocklist",
    "integrations:view",
]
IN_ADDRESS = {
    "policies:history": "policy",
    "policies:versions": "policy",
    "runs:run": "run",
    "integrations:view": "hook",
}


def test_a_page_full_of_rows_is_at_most_60_kb():
    organization = factories.organization("octo-org")
    ann = Client()
    ann.force_login(factories.member(organization, Role.OWNER), backend="policystore.accounts.access.RoleBackend")
    ids = fill(organization)
    sizes = {page: ann.get(address(page, ids)).size for page in PAGES}
    assert {page: size for page, size in sizes.items() if size > MOST_BYTES} == {}


def address(page, ids):
    name, _, query = page.partition("?")
    arguments = [ids[IN_ADDRESS[name]]] if name in IN_ADDRESS else []
    return f"{reverse(name, args=['octo-org', *arguments])}?{query}"


def fill(organization):
    """A page full of everything; returns the ids that addresses need."""
    names = [f"payment-service-{number:02}" for number in range(ROWS)]
    made = [factories.policy(organization, f"{name}-release", description="Publishes the images") for name in names]
    runs = [run_of(organization, name, policy) for name, policy in zip(names, made, strict=True)]
    for number, run in enumerate(runs):
        events_of(run, number)
        events_of(runs[0], number, digest="first")
        factories.endpoint_set(organization, f"{names[number]}-registries", description="What the image build needs")
        management_of(organization, names[number])
    edited(made[0])
    ask_for_deletions(organization, made)
    hook = factories.integration(organization, name="security events")
    outbox.emit_all(
        organization=organization, events=[outbox.Event("detection", {"number": number}) for number in range(ROWS)]
    )
    return {"policy": made[0].pk, "run": runs[0].pk, "hook": hook.pk}


def run_of(organization, repository, policy):
    """A job run of a workflow that has a policy of its own, which its last job got."""
    now = timezone.now()
    workflow = Workflow.objects.create(
        repository=Repository.objects.create(organization=organization, name=repository, key=repository),
        file_name="release-images.yml",
    )
    scope = Scope.for_workflow("octo-org", repository, workflow.file_name)
    attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=ANN)
    served = {"policy_id": policy.pk, "policy_version": 1, "egress_policy": "block"}
    LastFetch.objects.create(workflow=workflow, at=now, run_id="1", correlation_id=repository, **served)
    return JobRun.objects.create(
        organization=organization,
        repository=repository,
        workflow=workflow.file_name,
        job="build-and-publish",
        cluster=f"{repository}-runners",
        run_id="1",
        correlation_id=repository,
        policy_name=policy.name,
        scope_key=scope.key,
        verified_by="key",
        first_seen_at=now,
        fetched_at=now,
        calls=12,
        blocked_calls=1,
        **served,
    )


def events_of(run, number, digest="own"):
    """A blocked call, its detection and its row of the baseline."""
    now = timezone.now()
    seen = {"organization": run.organization, "host": f"images-{number:02}.registry.example.com", "port": 443}
    NetworkEvent.objects.create(
        **seen,
        job_run=run,
        digest=f"{digest}-{number}",
        kind="connection",
        address="192.0.2.17",
        process="docker",
        ancestry=[{"name": "docker"}, {"name": "bash"}, {"name": "Runner.Worker"}],
        status="blocked",
        occurred_at=now - timedelta(minutes=number),
        received_at=now,
    )
    job = {"repository": run.repository, "workflow": run.workflow, "job": run.job, "cluster": run.cluster}
    times = {"first_seen_at": now, "last_seen_at": now}
    JobEndpoint.objects.get_or_create(**seen, **job, defaults={**times, "calls": 12, "blocked_calls": 1, "runs": 1})
    Detection.objects.create(
        organization=run.organization,
        job_run=run,
        digest=f"{digest}-{number}",
        detection_id="Domain-Blocked",
        host=seen["host"],
        port=443,
        process="docker",
        policy_id=run.policy_id,
        policy_name=run.policy_name,
        policy_version=1,
        at=now,
    )


def management_of(organization, name):
    """An entry of each list of the settings."""
    now = timezone.now()
    SuppressionRule.objects.create(
        organization=organization, destination=f"{name}.example.com", reason=REASON, created_at=now, created_by="ann"
    )
    NeverAllowHost.objects.create(
        organization=organization, host=f"{name}.example.com", reason=REASON, added_at=now, added_by="ann"
    )
    BlocklistEntry.objects.create(
        organization=organization, kind="domain", endpoint=f"{name}.example.com", reason=REASON
    )
    factories.management_key(organization, name)
    factories.member(organization, Role.AUDITOR, f"auditor-of-{name}")
    break_glass.start(
        organization=organization, scope=Scope.for_organization("octo-org"), hours=1, reason=REASON, by=ANN
    )


def edited(policy):
    for number in range(ROWS):
        text = f"{factories.TEXT}  images-{number:02}.registry.example.com:443\n"
        policy = policies.UpdatePolicy(
            policy=policy, name=policy.name, description="", text=text, expected_version=policy.version
        ).apply(by=ANN)


def ask_for_deletions(organization, policies_to_delete):
    for policy in policies_to_delete:
        subject = ("policy", policy.pk, policy.name)
        change = commands.Change(policies.DeletePolicy.verb, organization, subject, {"policy_id": policy.pk})
        change_requests.ask(change=change, by=ANN)
