"""Ingest of what CargoWall's action reports at the end of a job.

The action takes any answer but 200 for a failure and sends the report once, so what can be understood of it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from policystore.detections import actions
from policystore.inventory import actions as inventory
from policystore.inventory.actions import Sighting
from policystore.inventory.models import Organization
from policystore.runners import job_runs, oidc
from policystore.runners.fetch import cargowall
from policystore.runners.fetch.cargowall import OTHER_ACCOUNT, Job
from policystore.runners.models import Downgrade, JobRun, Verification
from policystore.runners.protocol import UNKNOWN_OWNER
from policystore.telemetry import limits
from policystore.telemetry.cargowall_report import Report, parse_report
from policystore.telemetry.ingest import known_run
from policystore.telemetry.limits import MAX_EVENTS
from policystore.traffic.event_parser import Malformed
from policystore.web import metrics
from policystore.web.json_api import Refused, Reply, json_object, json_reply, refuse, route

ENFORCER = "CargoWall"
_NOT_BLOCKED = "it reported audit mode although block was served"


@route("POST")
def job_report(request: HttpRequest) -> Reply:
    """Store the report of a job; the job is the one that its token and its key name."""
    # A report can wait for the issuer's keys: its job has ended.
    authorization = request.headers.get("Authorization", "")
    claims = cargowall.verified_claims(authorization, wait_seconds=oidc.WAIT_SECONDS)
    organization = _organization(Job.parse(claims, ""))
    limits.spend_report(organization.pk, str(claims.get("repository", "")), str(claims.get("run_id", "")))
    report = _report(json_object(request))
    run = _run(organization, Job.parse(claims, report.job_key), report)
    limits.refuse_full(run)
    _describe(run, report)
    _store_events(run, report)
    url = settings.PUBLIC_URL + quote(reverse("runs:run", args=[organization.key, run.pk]), safe="/%")
    return json_reply({"job_id": str(run.pk), "workflow_run_id": run.run_id, "workflow_run_url": url})


def _organization(job: Job) -> Organization:
    """The organization of a token. Raises Refused with 403 if it is not known, or is another account's by now."""
    organization = Organization.objects.filter(key=job.owner).first()
    if organization is None:
        raise Refused(UNKNOWN_OWNER)
    if not job.is_of_account(organization.github_id):
        raise Refused(OTHER_ACCOUNT)
    return organization


def _report(value: Mapping[str, Any]) -> Report:
    try:
        return parse_report(value)
    except Malformed as error:
        raise refuse(400, "invalid_report", str(error)) from error


def _run(organization: Organization, job: Job, report: Report) -> JobRun:
    """The job run, which its fetch has created; a job that could not fetch is added."""
    run = known_run(organization.key, job.repository, job.correlation_id, job.run_id)
    if run is not None and run.job == report.job[:255]:
        return run
    now = timezone.now()
    inventory.learn(sightings=[Sighting(organization.pk, job.repository, job.workflow, "")])
    return job_runs.register(
        organization=organization,
        repository=job.repository,
        workflow=job.workflow,
        run_id=job.run_id,
        correlation_id=job.correlation_id,
        job=report.job,
        at=_began_at(report, now),
        verified_by=Verification.TOKEN,
    )


def _began_at(report: Report, now: datetime) -> datetime:
    """When a job began that did not fetch: its first event if that is possible, otherwise now."""
    earliest = now - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)
    at = report.started_at
    return at if at is not None and earliest < at < now else now


def _describe(run: JobRun, report: Report) -> None:
    """Record the enforcer, and that it did not enforce what was served if it says so."""
    downgrade, reason = report.downgrade, report.downgrade_reason
    if not downgrade and report.audits and run.egress_policy == "block":
        downgrade, reason = Downgrade.AUDIT, _NOT_BLOCKED
    enforcer = f"{ENFORCER} {report.version}".strip()
    job_runs.describe_enforcer(run=run, enforcer=enforcer, downgrade=downgrade, downgrade_reason=reason)


def _store_events(run: JobRun, report: Report) -> None:
    """Store the events in parts; if that ends early, the whole report can be sent again."""
    now, stored = timezone.now(), 0
    for start in range(0, len(report.events), MAX_EVENTS):
        run.refresh_from_db()
        part = report.events[start : start + MAX_EVENTS]
        stored += actions.observe(run=run, events=part, received_at=now).stored
    metrics.count_ingest(stored=stored, repeated=len(report.events) - stored, malformed=report.malformed)
