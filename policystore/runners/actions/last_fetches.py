"""Keeps what the latest job of each workflow was served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection

from policystore.inventory.models import Workflow
from policystore.runners.models import JobRun

ROWS_PER_STATEMENT = 100
_COLUMNS = "workflow_id, at, run_id, correlation_id, cluster, policy_id, policy_version, egress_policy"

# Organization, repository in lower case, workflow file.
_Key = tuple[int, str, str]


def note(*, job_runs: Iterable[JobRun]) -> None:
    """Remember the latest of these fetches for each workflow that the inventory knows; an older one changes nothing.

    Processes write their batches in any order, so the database compares the times.
    """
    latest: dict[_Key, JobRun] = {}
    for run in job_runs:
        key = (run.organization_id, run.repository.lower(), run.workflow)
        if run.workflow and run.fetched_at and (key not in latest or _fetched(latest[key]) <= _fetched(run)):
            latest[key] = run
    ids = _workflow_ids(latest)
    # One order for all, so that two processes never wait for each other in a circle.
    _upsert([_row(ids[key], latest[key]) for key in sorted(latest, key=lambda key: ids.get(key, 0)) if key in ids])


def _fetched(run: JobRun) -> Any:
    return run.fetched_at


def _workflow_ids(keys: Iterable[_Key]) -> dict[_Key, int]:
    keys = list(keys)
    if not keys:
        return {}
    rows = Workflow.objects.filter(
        repository__organization__in={organization for organization, _, _ in keys},
        repository__key__in={repository for _, repository, _ in keys},
        file_name__in={workflow for _, _, workflow in keys},
    ).values_list("repository__organization", "repository__key", "file_name", "pk")
    return {(organization, repository, workflow): pk for organization, repository, workflow, pk in rows}


def _row(workflow_id: int, run: JobRun) -> tuple[Any, ...]:
    at = connection.ops.adapt_datetimefield_value(run.fetched_at)
    served = (run.policy_id, run.policy_version, run.egress_policy)
    return (workflow_id, at, run.run_id, run.correlation_id, run.cluster, *served)


def _upsert(rows: Sequence[tuple[Any, ...]]) -> None:
    names = _COLUMNS.split(", ")
    one = f"({', '.join(['%s'] * len(names))})"
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    with connection.cursor() as cursor:
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            part = rows[start : start + ROWS_PER_STATEMENT]
            # Names are constants of this module; every value is a parameter.
            cursor.execute(
                f"INSERT INTO runners_lastfetch AS t ({_COLUMNS}) VALUES {', '.join([one] * len(part))} "  # noqa: S608
                f"ON CONFLICT (workflow_id) DO UPDATE SET {changes} WHERE t.at <= excluded.at",
                [value for row in part for value in row],
            )
