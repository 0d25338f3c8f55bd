"""Finds what a job calls that none of its earlier runs called."""

from __future__ import annotations

from collections.abc import Set

from policystore.runners.models import JobRun
from policystore.traffic.actions import aggregates
from policystore.traffic.actions.aggregates import Endpoint, Job


def endpoints(run: JobRun, asked: Set[Endpoint], job: Job) -> Set[Endpoint]:
    """Endpoints that no earlier run of the same job called; a job's first run has none, since all would be new."""
    if not asked:
        return set()
    unseen = asked - aggregates.known(job, asked)
    return unseen if unseen and _had_earlier_run(run) else set()


def _had_earlier_run(run: JobRun) -> bool:
    same = JobRun.objects.filter(
        organization_id=run.organization_id,
        repository=run.repository,
        workflow=run.workflow,
        job=run.job,
        cluster=run.cluster,
        calls__gt=0,
    )
    return same.exclude(pk=run.pk).exists()
