"""Writes job runs: what runners fetched, and with which policy they were answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import F

from policystore.accounts.actions import api_keys
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.runners.actions import last_fetches
from policystore.runners.models import JobRun


@dataclass(frozen=True, slots=True)
class Fetch:
    """One answered fetch; policy fields are None or empty where no policy applied."""

    key_id: int
    organization_id: int
    repository: str
    workflow: str
    run_id: str
    correlation_id: str
    cluster: str
    policy_id: int | None
    policy_name: str
    policy_version: int | None
    egress_policy: str
    break_glass: bool
    staged_event_id: int | None
    scope_key: str
    at: datetime


UPDATED_BY_A_REPEAT = [
    "repository",
    "workflow",
    "cluster",
    "policy_id",
    "policy_name",
    "policy_version",
    "scope_key",
    "egress_policy",
    "break_glass",
    "staged_event_id",
    "fetched_at",
    "api_key_id",
]


def record_fetches(*, fetches: Sequence[Fetch]) -> None:
    """Write a batch: a job run each (a repeat of the same job updates its row), what it teaches of repositories,
    workflows and clusters, what each workflow was served last, and when each key was last used."""
    latest = {(fetch.organization_id, fetch.run_id, fetch.correlation_id): fetch for fetch in fetches}
    with transaction.atomic():
        rows = [_job_run(fetch) for _, fetch in sorted(latest.items())]
        JobRun.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["organization", "run_id", "correlation_id"],
            update_fields=UPDATED_BY_A_REPEAT,
        )
        inventory.learn(
            sightings=[
                inventory.Sighting(fetch.organization_id, fetch.repository, fetch.workflow, fetch.cluster)
                for fetch in fetches
            ]
        )
        last_fetches.note(job_runs=rows)
        api_keys.mark_used(used={fetch.key_id: fetch.at for fetch in fetches})


def _job_run(fetch: Fetch) -> JobRun:
    return JobRun(
        organization_id=fetch.organization_id,
        repository=fetch.repository[:255],
        workflow=fetch.workflow[:512],
        run_id=fetch.run_id,
        correlation_id=fetch.correlation_id,
        cluster=fetch.cluster[:255],
        policy_id=fetch.policy_id,
        policy_name=fetch.policy_name,
        policy_version=fetch.policy_version,
        scope_key=fetch.scope_key,
        egress_policy=fetch.egress_policy,
        break_glass=fetch.break_glass,
        staged_event_id=fetch.staged_event_id,
        first_seen_at=fetch.at,
        fetched_at=fetch.at,
        api_key_id=fetch.key_id,
    )


def register(
    *, organization: Organization, repository: str, run_id: str, correlation_id: str, job: str, at: datetime
) -> JobRun:
    """Tie a job's name to its run and correlation id, as the action tells it; telling it again changes nothing.

    The row may be there already from the job's fetch. The inventory learns nothing of it, since the action tells it
    without a key.
    """
    JobRun.objects.bulk_create(
        [
            JobRun(
                organization=organization,
                repository=repository[:255],
                run_id=run_id[:64],
                correlation_id=correlation_id[:255],
                job=job[:255],
                first_seen_at=at,
                monitored_at=at,
            )
        ],
        update_conflicts=True,
        unique_fields=["organization", "run_id", "correlation_id"],
        update_fields=["job", "monitored_at"],
    )
    return JobRun.objects.get(organization=organization, run_id=run_id[:64], correlation_id=correlation_id[:255])


def count_calls(*, run: JobRun, calls: int, blocked: int, off_list: int, new_endpoints: int) -> None:
    """Add what telemetry told of a job to its row."""
    JobRun.objects.filter(pk=run.pk).update(
        calls=F("calls") + calls,
        blocked_calls=F("blocked_calls") + blocked,
        off_list_calls=F("off_list_calls") + off_list,
        new_endpoints=F("new_endpoints") + new_endpoints,
    )
