"""Keeps what the latest job of each workflow was served."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db import connection

from policystore.db import bulk_json
from policystore.runners.models import JobRun

WorkflowKey = tuple[int, str, str]


class Fetched(NamedTuple):
    """A fetch and what it was served; policy fields are None or empty where no policy applied."""

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
        """What a job run tells of its fetch; None where it did not fetch."""
        if run.fetched_at is None:
            return None
        job = (run.organization_id, run.repository, run.workflow, run.fetched_at, run.run_id, run.correlation_id)
        return cls(*job, run.cluster, run.policy_id, run.policy_version, run.egress_policy)


# How the database reads a Fetched.
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
_KEPT = ("at", "run_id", "correlation_id", "cluster", "policy_id", "policy_version", "egress_policy")
_TOLD = ", ".join("substr(f.cluster, 1, 255) AS cluster" if name == "cluster" else f"f.{name}" for name in _KEPT)
# Joined with the repository, PostgreSQL reads all its workflows for each row.
_KNOWN = f"""
SELECT {{chosen}} w.id AS workflow_id, {_TOLD} FROM {{fetches}} AS f
JOIN inventory_workflow w ON w.file_name = f.workflow AND w.repository_id = (
    SELECT r.id FROM inventory_repository r WHERE r.organization_id = f.organization_id AND r.key = f.repository_key
)
"""  # noqa: S608 constants alone
# Processes write their batches in any order, so the database compares the times. All do it in one order, so that two
# never wait for each other in a circle.
_NOTE = f"""
INSERT INTO runners_lastfetch AS t (workflow_id, {", ".join(_KEPT)})
{{known}} ORDER BY workflow_id
ON CONFLICT (workflow_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _KEPT)}
WHERE t.at <= excluded.at
"""
# For a statement of PostgreSQL's with a relation `fetches` that has these columns: the latest of each workflow that the
# inventory knows, and what writes it as `note` does, from a relation `known`.
KNOWN = _KNOWN.format(chosen="DISTINCT ON (w.id)", fetches="fetches") + "ORDER BY w.id, f.at DESC"
_OF_KNOWN = f"SELECT workflow_id, {', '.join(_KEPT)} FROM known WHERE {{condition}}"  # noqa: S608 constants alone
NOTE_KNOWN = _NOTE.format(known=_OF_KNOWN)


def workflow_key(organization_id: int, repository: str, workflow: str) -> WorkflowKey:
    """What tells a workflow from others: organization, folded repository, file name."""
    return organization_id, repository.lower(), workflow


def note(*, fetches: Iterable[Fetched]) -> bool:
    """Remember the latest of these fetches for each workflow that the inventory knows; an older one changes nothing.

    Returns whether each workflow has its own now: False where the inventory does not know one, or another process has
    noted a later fetch.
    """
    latest: dict[WorkflowKey, Fetched] = {}
    for fetch in fetches:
        key = workflow_key(fetch.organization_id, fetch.repository, fetch.workflow)
        if fetch.workflow and (key not in latest or latest[key].at <= fetch.at):
            latest[key] = fetch
    if not latest:
        return True
    known = _KNOWN.format(chosen="", fetches=bulk_json.source(**_COLUMNS))
    statement = _NOTE.format(known=f"{known} WHERE true")
    rows = [(organization, repository, *fetch[2:]) for (organization, repository, _), fetch in latest.items()]
    with connection.cursor() as cursor:
        cursor.execute(statement, [bulk_json.parameter(rows)])
        noted: int = cursor.rowcount
    return noted == len(rows)
