"""Writes job runs: what runners fetched, and which policy they were served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import F

from policystore.accounts import api_keys
from policystore.accounts.models import AccountEvent, Actor
from policystore.db import bulk_json, vendor
from policystore.inventory import actions as inventory
from policystore.inventory.actions import Sighting
from policystore.inventory.models import Cluster, Organization
from policystore.runners import last_fetches
from policystore.runners.last_fetches import Fetched
from policystore.runners.models import JobRun, Verification, VerifiedRun


class Fetch(NamedTuple):
    """One answered fetch; policy fields are None or empty if no policy applied. It has no key if it had a token."""

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
    key_id: int | None


class TokenFetch(NamedTuple):
    """A fetch with a token signed by GitHub, which names the workflow run but not the job."""

    owner: str
    repository: str
    workflow: str
    run_id: str
    at: datetime


# The fields of a Fetch with their SQL types.
_COLUMNS = {
    "organization_id": "bigint",
    "repository": "text",
    "workflow": "text",
    "run_id": "text",
    "correlation_id": "text",
    "cluster": "text",
    "policy_id": "bigint",
    "policy_name": "text",
    "policy_version": "integer",
    "egress_policy": "text",
    "break_glass": "boolean",
    "staged_event_id": "bigint",
    "scope_key": "text",
    "at": "timestamptz",
    "key_id": "bigint",
}
_COLUMNS_UPDATED = (
    *("workflow", "cluster", "policy_id", "policy_name", "policy_version", "scope_key"),
    *("egress_policy", "break_glass", "staged_event_id", "fetched_at", "api_key_id", "verified_by"),
)
_UPDATES = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS_UPDATED)
_RECORD = f"""
INSERT INTO runners_jobrun (organization_id, repository, workflow, run_id, correlation_id, job, cluster, policy_id,
    policy_name, policy_version, scope_key, egress_policy, break_glass, staged_event_id, first_seen_at, fetched_at,
    api_key_id, verified_by)
SELECT organization_id, substr(repository, 1, 255), substr(workflow, 1, 512), run_id, correlation_id, '',
    substr(cluster, 1, 255), policy_id, policy_name, policy_version, scope_key, egress_policy, break_glass,
    staged_event_id, at, at, key_id,
    CASE WHEN key_id IS NULL THEN '{Verification.TOKEN}' ELSE '{Verification.KEY}' END
FROM {{fetches}} WHERE true
ON CONFLICT (organization_id, run_id, correlation_id, repository) DO UPDATE SET {_UPDATES}
"""  # noqa: S608 constants alone


def record_fetches(*, fetches: Sequence[Fetch]) -> None:
    """Write a batch: the job runs, what each workflow was served last, when each key was last used, and new
    repositories, workflows and clusters. A second fetch of the same job updates its row."""
    latest = {
        (fetch.organization_id, fetch.run_id, fetch.correlation_id, fetch.repository[:255]): fetch for fetch in fetches
    }
    # All processes write in the same order, so that they cannot deadlock.
    rows = [latest[job] for job in sorted(latest)]
    # SQLite cannot write several tables in one statement.
    write = vendor.choose(postgresql=_write_in_one_statement, sqlite=_write_table_by_table)
    knows_all_workflows = write(rows)
    _mark_keys_of_repeats(fetches, rows)
    inventory.learn(sightings=_new_sightings(fetches, knows_workflows=knows_all_workflows))
    if not knows_all_workflows:
        last_fetches.store(fetches=[_fetched(fetch) for fetch in rows])


def _write_in_one_statement(rows: Sequence[Fetch]) -> bool:
    """Write all tables in one statement; return True if the inventory knows each workflow.

    This saves four round trips, during which this process's answers and the batch would wait for each other.
    """
    values = [(*fetch, fetch.repository.lower()) for fetch in rows]
    with connection.cursor() as cursor:
        cursor.execute(_statement(), [bulk_json.parameter(values)])
        known: int = cursor.fetchone()[0]
    return known == len({_workflow_key(fetch) for fetch in rows if fetch.workflow})


def _workflow_key(fetch: Fetch) -> last_fetches.WorkflowKey:
    return last_fetches.workflow_key(fetch.organization_id, fetch.repository, fetch.workflow)


@cache
def _statement() -> str:
    # Each part waits for the one before, so that a batch that waits for a job's row does not hold rows that all others
    # need.
    return f"""
        WITH fetches AS {bulk_json.source(**_COLUMNS, repository_key="text")},
        recorded AS ({_RECORD.format(fetches="fetches")} RETURNING 1),
        known AS ({last_fetches.KNOWN}),
        stored AS ({last_fetches.STORE_KNOWN.format(condition="(SELECT COUNT(*) FROM recorded) >= 0")} RETURNING 1),
        used AS ({api_keys.USED_IN_RELATION.format(condition="(SELECT COUNT(*) FROM stored) >= 0")})
        SELECT COUNT(*) FROM known
    """  # noqa: S608 constants alone


def _write_table_by_table(rows: Sequence[Fetch]) -> bool:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_job_run_statement(), [bulk_json.parameter(rows)])
        knows_all_workflows = last_fetches.store(fetches=[_fetched(fetch) for fetch in rows])
        api_keys.mark_used(used=_uses(sorted(rows, key=attrgetter("at"))))
    return knows_all_workflows


@cache
def _job_run_statement() -> str:
    return _RECORD.format(fetches=f"{bulk_json.source(**_COLUMNS)} AS fetches")


def _mark_keys_of_repeats(fetches: Sequence[Fetch], rows: Sequence[Fetch]) -> None:
    """Mark keys as used whose jobs fetched again with another key in the same batch."""
    if len(rows) < len(fetches):
        marked = {fetch.key_id for fetch in rows}
        api_keys.mark_used(used=_uses(fetch for fetch in fetches if fetch.key_id not in marked))


def _uses(fetches: Iterable[Fetch]) -> dict[int, datetime]:
    """When each key was used last; of two fetches with one key, the later in the order counts."""
    return {fetch.key_id: fetch.at for fetch in fetches if fetch.key_id is not None}


def _new_sightings(fetches: Sequence[Fetch], *, knows_workflows: bool) -> set[Sighting]:
    """Return what the inventory may not know. A workflow whose last fetch could be stored is known."""
    if not knows_workflows:
        return {Sighting(f.organization_id, f.repository, f.workflow, f.cluster) for f in fetches}
    clusters = {Sighting(f.organization_id, "", "", f.cluster) for f in fetches if f.cluster}
    return clusters | {Sighting(f.organization_id, f.repository, "", "") for f in fetches if not f.workflow}


def _fetched(fetch: Fetch) -> Fetched:
    job = (fetch.organization_id, fetch.repository, fetch.workflow, fetch.at, fetch.run_id, fetch.correlation_id)
    return Fetched(*job, fetch.cluster, fetch.policy_id, fetch.policy_version, fetch.egress_policy)


def register(
    *,
    organization: Organization,
    repository: str,
    run_id: str,
    correlation_id: str,
    job: str,
    at: datetime,
    workflow: str = "",
    cluster: str = "",
    verified_by: str = "",
) -> JobRun:
    """Record a job's name under its run and correlation id; recording it a second time changes nothing.

    The job's fetch may already have created the row, with its workflow. The cluster of a fetch, which needs a key, is
    never replaced. A registration needs no key, so it adds nothing to the inventory. `verified_by` is the proof that
    came with the registration, if any.
    """
    JobRun.objects.bulk_create(
        [
            JobRun(
                organization=organization,
                repository=repository[:255],
                workflow=workflow[:512],
                run_id=run_id[:64],
                correlation_id=correlation_id[:255],
                job=job[:255],
                cluster=cluster[:255],
                first_seen_at=at,
                monitored_at=at,
                verified_by=verified_by,
            )
        ],
        update_conflicts=True,
        unique_fields=["organization", "run_id", "correlation_id", "repository"],
        update_fields=["job", "monitored_at"],
    )
    run = JobRun.objects.get(
        organization=organization, run_id=run_id[:64], correlation_id=correlation_id[:255], repository=repository[:255]
    )
    if cluster and not run.cluster and run.fetched_at is None:
        run.cluster = cluster[:255]
        JobRun.objects.filter(pk=run.pk, cluster="", fetched_at__isnull=True).update(cluster=run.cluster)
    if not run.is_verified:
        verify(run=run, verified_by=verified_by or _known_proof(run))
    return run


def verify(*, run: JobRun, verified_by: str) -> None:
    """Let the telemetry of an unverified job run count; without a proof, or if it is already verified, nothing changes.

    The worker counts what was stored before.
    """
    if verified_by and not run.is_verified:
        JobRun.objects.filter(pk=run.pk, verified_by="").update(verified_by=verified_by)
        run.verified_by = verified_by


def _known_proof(run: JobRun) -> str:
    """Return what proves a job run besides its own requests: a token of its workflow run, or an owner's choice."""
    if run.run_id and VerifiedRun.objects.filter(**_run_of(run.organization_id, run.repository, run.run_id)).exists():
        return Verification.TOKEN
    counted = Cluster.objects.filter(organization_id=run.organization_id, name=run.cluster, counts_unverified=True)
    return Verification.CLUSTER if run.cluster and counted.exists() else ""


def verify_workflow_runs(*, fetches: Sequence[TokenFetch]) -> None:
    """Verify the job runs of the workflow runs whose tokens were sent, including those that register later."""
    known = Organization.objects.filter(key__in={fetch.owner for fetch in fetches})
    organizations = {organization.key: organization.pk for organization in known}
    runs = {
        tuple(values.values()): VerifiedRun(**values, at=fetch.at)
        for fetch in fetches
        if fetch.owner in organizations and fetch.run_id
        for values in (_run_of(organizations[fetch.owner], fetch.repository, fetch.run_id),)
    }
    # All processes write in the same order, so that they cannot deadlock.
    ordered = [runs[identity] for identity in sorted(runs)]
    VerifiedRun.objects.bulk_create(ordered, ignore_conflicts=True)
    for run in ordered:
        jobs = JobRun.objects.filter(organization=run.organization_id, run_id=run.run_id, verified_by="")
        jobs.filter(repository__iexact=run.repository).update(verified_by=Verification.TOKEN)


def _run_of(organization_id: int, repository: str, run_id: str) -> dict[str, Any]:
    return {"organization_id": organization_id, "repository": repository.lower()[:255], "run_id": run_id[:64]}


def count_unverified(*, cluster: Cluster, counts: bool, by: Actor) -> None:
    """Start or stop counting the unverified jobs of a cluster; if it is set that way already, nothing changes.

    Unverified job runs that have not expired are counted, too. What was counted before is kept.
    """
    with transaction.atomic():
        changed = Cluster.objects.filter(pk=cluster.pk, counts_unverified=not counts).update(counts_unverified=counts)
        if not changed:
            return
        if counts:
            waiting = JobRun.objects.filter(organization=cluster.organization_id, cluster=cluster.name, verified_by="")
            waiting.update(verified_by=Verification.CLUSTER)
        kind = "unverified jobs counted" if counts else "unverified jobs not counted"
        AccountEvent.objects.record(
            cluster.organization, kind, by=by, subject=cluster.name, detail=f"cluster {cluster.name}"
        )


def describe_enforcer(*, run: JobRun, enforcer: str, downgrade: str, downgrade_reason: str) -> None:
    """Record what enforced the policy, and what it did instead if it could not; no later report takes that back."""
    values = {"enforcer": enforcer[:100]}
    if downgrade:
        values |= {"downgrade": downgrade, "downgrade_reason": downgrade_reason[:200]}
    JobRun.objects.filter(pk=run.pk).update(**values)


def count_events(
    *, run: JobRun, events: int = 0, calls: int = 0, blocked: int = 0, off_list: int = 0, new_endpoints: int = 0
) -> None:
    """Add what telemetry reports of a job to its row."""
    JobRun.objects.filter(pk=run.pk).update(
        stored_events=F("stored_events") + events,
        calls=F("calls") + calls,
        blocked_calls=F("blocked_calls") + blocked,
        off_list_calls=F("off_list_calls") + off_list,
        new_endpoints=F("new_endpoints") + new_endpoints,
    )


def update_verdicts(*, run: JobRun, off_list: int, new_endpoints: int) -> None:
    """Replace the counts of off-list calls and new endpoints, once more is known of the job."""
    JobRun.objects.filter(pk=run.pk).update(off_list_calls=off_list, new_endpoints=new_endpoints)


def drop_emptied(*, run: JobRun) -> None:
    """Delete the row of a job that turned out to be another job, after everything was moved to that one."""
    JobRun.objects.filter(pk=run.pk).delete()
