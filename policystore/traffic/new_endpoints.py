"""Finds endpoints that a job calls and none of its earlier runs called."""

from __future__ import annotations

from collections.abc import Set

from django.db.models.functions import Lower

from policystore.runners.models import JobRun
from policystore.traffic import aggregates
from policystore.traffic.aggregates import Endpoint, Job


def endpoints(run: JobRun, called: Set[Endpoint], job: Job) -> Set[Endpoint]:
    """Those of the called endpoints that no earlier run of the same job called.

    Empty for a job's first run, where all would be new. The jobs of a matrix are one run.
    """
    if not called:
        return set()
    unknown = called - aggregates.known(job, called)
    return unknown if unknown and _had_earlier_run(run) else set()


def _had_earlier_run(run: JobRun) -> bool:
    same = JobRun.objects.alias(folded=Lower("repository")).filter(
        organization_id=run.organization_id,
        # The expression of the index. With a condition on the plain name as well, SQLite would use no index.
        folded=run.repository.lower(),
        workflow=run.workflow,
        job=run.job,
        cluster=run.cluster,
        calls__gt=0,
    )
    if run.job:
        # The condition of the partial index on named jobs.
        same = same.exclude(job="")
    # Without a run id, each job run is a run of its own.
    return same.exclude(run_id=run.run_id).exists() or (not run.run_id and same.exclude(pk=run.pk).exists())
