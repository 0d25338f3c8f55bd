"""Finds what a job calls that none of its earlier runs called."""

from __future__ import annotations

from collections.abc import Set

from django.db.models.functions import Lower

from policystore.runners.models import JobRun
from policystore.traffic.actions import aggregates
from policystore.traffic.actions.aggregates import Endpoint, Job


def endpoints(run: JobRun, asked: Set[Endpoint], job: Job) -> Set[Endpoint]:
    """Endpoints that no earlier run of the same job called; a job's first run has none, since all would be new.

    The jobs of a matrix are one run.
    """
    if not asked:
        return set()
    unseen = asked - aggregates.known(job, asked)
    return unseen if unseen and _had_earlier_run(run) else set()


def _had_earlier_run(run: JobRun) -> bool:
    same = JobRun.objects.alias(folded=Lower("repository")).filter(
        organization_id=run.organization_id,
        # As the indexes have it. With the name itself beside it, SQLite would put that in and use no index.
        folded=run.repository.lower(),
        workflow=run.workflow,
        job=run.job,
        cluster=run.cluster,
        calls__gt=0,
    )
    if run.job:
        # As the index of named jobs has it.
        same = same.exclude(job="")
    # Without a run id, each job run is a run of its own.
    return same.exclude(run_id=run.run_id).exists() or (not run.run_id and same.exclude(pk=run.pk).exists())
