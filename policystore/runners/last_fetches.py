"""Stores what the latest job of each workflow was served."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db import connection

from policystore.db import bulk_json
from policystore.runners.models import JobRun

WorkflowKey = tuple[int, str, str]


class Fetched(NamedTuple):
    """A fetch and what it was served; policy fields are None or empty if no policy applied."""

    organization_id: int
    repository: str
    workflow: str
    at: datetime
    run_id: str
    correlation_id: str
    cluster: str
    policy_id: int | None
    policy_version: int | None
    egress_policy: str

    @classmethod
    def of(cls, run: JobRun) -> Fetched | None:
        """Return the fetch of a job run, or None if it did not fetch."""
        if run.fetched_at is None:
            return None
        job = (run.organization_id, run.repository, run.workflow, run.fetched_at, run.run_id, run.correlation_id)
        return cls(*job, run.cluster, run.policy_id, run.policy_version, run.egress_policy)


# The fields of a Fetched with their SQL types.
_COLUMNS = {
    "organization_id": "bigint",
    "repository_key": "text",
    "workflow": "text",
    "at": "timestamptz",
    "run_id": "text",
    "correlation_id": "text",
    "cluster": "text",
    "policy_id": "bigint",
    "policy_version": "integer",
    "egress_policy": "text",
}
_FIELDS = ("at", "run_id", "correlation_id", "cluster", "policy_id", "policy_version", "egress_policy")
_SELECTED = ", ".join("substr(f.cluster, 1, 255) AS cluster" if name == "cluster" else f"f.{name}" for name in _FIELDS)
# Looks up each workflow in the index. PostgreSQL takes every batch to be large, and for a join it would read all
# workflows.
_KNOWN = f"""
WITH found AS MATERIALIZED (
    SELECT (
        SELECT w.id FROM inventory_workflow w WHERE w.file_name = f.workflow AND w.repository_id = (
            SELECT r.id FROM inventory_repository r
            WHERE r.organization_id = f.organization_id AND r.key = f.repository_key
        )
    ) AS workflow_id, {_SELECTED}
    FROM {{fetches}} AS f
)
SELECT {{chosen}} * FROM found WHERE workflow_id IS NOT NULL
"""  # noqa: S608 constants alone
# Processes write their batches in any order, so the database compares the times. All of them sort by workflow, so that
# they cannot deadlock.
_STORE = f"""
INSERT INTO runners_lastfetch AS t (workflow_id, {", ".join(_FIELDS)})
{{known}} ORDER BY workflow_id
ON CONFLICT (workflow_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _FIELDS)}
WHERE t.at <= excluded.at
"""
# For a PostgreSQL statement with a relation `fetches` that has these columns: KNOWN selects the latest fetch of each
# workflow that the inventory knows, and STORE_KNOWN stores what the relation `known` has.
KNOWN = _KNOWN.format(chosen="DISTINCT ON (workflow_id)", fetches="fetches") + "ORDER BY workflow_id, at DESC"
_OF_KNOWN = f"SELECT workflow_id, {', '.join(_FIELDS)} FROM known WHERE {{condition}}"  # noqa: S608 constants alone
STORE_KNOWN = _STORE.format(known=_OF_KNOWN)


def workflow_key(organization_id: int, repository: str, workflow: str) -> WorkflowKey:
    """Return what identifies a workflow: organization, lower-case repository, file name."""
    return organization_id, repository.lower(), workflow


def store(*, fetches: Iterable[Fetched]) -> bool:
    """Store the latest of these fetches for each workflow that the inventory knows, unless a later one is stored.

    Returns True if all were stored; False if the inventory does not know a workflow, or another process has stored a
    later fetch.
    """
    latest: dict[WorkflowKey, Fetched] = {}
    for fetch in fetches:
        key = workflow_key(fetch.organization_id, fetch.repository, fetch.workflow)
        if fetch.workflow and (key not in latest or latest[key].at <= fetch.at):
            latest[key] = fetch
    if not latest:
        return True
    known = _KNOWN.format(chosen="", fetches=bulk_json.source(**_COLUMNS))
    statement = _STORE.format(known=known)
    rows = [(organization, repository, *fetch[2:]) for (organization, repository, _), fetch in latest.items()]
    with connection.cursor() as cursor:
        cursor.execute(statement, [bulk_json.parameter(rows)])
        stored: int = cursor.rowcount
    return stored == len(rows)
