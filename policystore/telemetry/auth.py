"""Authenticates senders of telemetry: a job's agent with its one-time key, or a system with an API key."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils import timezone

from policystore.accounts import api_keys
from policystore.accounts.api_keys import live_key
from policystore.runners import queries
from policystore.runners.actions import job_runs
from policystore.runners.clusters import cluster_of, require_cluster
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun, Verification
from policystore.runners.one_time_keys import run_id_of
from policystore.web.json_api import Refused, refuse


def sending_job(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> JobRun:
    """The job run that the telemetry is about.

    Raises Refused: 401 for a missing or invalid key, 403 for one of another organization or limited to other clusters.
    An API key verifies the job. If the store has not seen it yet, it is added; `monitor` sends its run and job later.
    """
    one_time_key = request.headers.get("X-One-Time-Key", "")
    if not one_time_key:
        return _with_api_key(request, owner, repository, correlation_id)
    run_id = run_id_of(one_time_key, owner, repository, correlation_id)
    if run_id is None:
        raise _unauthorized()
    run = _known(owner, repository, correlation_id, run_id)
    if run is None:
        raise refuse(403, "unknown_job_run", "The store does not know this job, or it began too long ago.")
    return run


def _with_api_key(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> JobRun:
    key = live_key(api_keys.parse_authorization(request.headers.get("Authorization", ""))[1])
    if key is None:
        raise _unauthorized()
    if key.organization.key != owner:
        raise refuse(403, "forbidden", "This API key belongs to another organization.")
    cluster = cluster_of(request.META)
    require_cluster(key, cluster)
    run = _known(owner, repository, correlation_id)
    if run is not None:
        require_cluster(key, run.cluster)
        job_runs.verify(run=run, verified_by=Verification.SENDER)
        return run
    return job_runs.register(
        organization=key.organization,
        repository=repository,
        run_id="",
        correlation_id=correlation_id,
        job="",
        cluster=cluster,
        at=timezone.now(),
        verified_by=Verification.SENDER,
    )


def _known(owner: str, repository: str, correlation_id: str, run_id: str | None = None) -> JobRun | None:
    run = queries.known_job_run(owner, repository, correlation_id, run_id)
    if run is not None and run.fetched_at is not None:
        return run
    # The job's fetch may still be waiting in this process to be recorded.
    recorder.flush()
    return queries.known_job_run(owner, repository, correlation_id, run_id)


def _unauthorized() -> Refused:
    return refuse(401, "unauthorized", "Send the job's one-time key as X-One-Time-Key, or an API key.")
