"""Who may send telemetry of a job: its agent with the job's one-time key, or a system with an API key."""

from __future__ import annotations

from django.http import HttpRequest
from django.utils import timezone

from policystore.accounts.bearers import live_key
from policystore.runners import queries, recorder
from policystore.runners.actions import job_runs
from policystore.runners.cluster_address import cluster_of
from policystore.runners.http import Refused, refuse
from policystore.runners.models import JobRun
from policystore.runners.one_time_keys import is_key_of


def sending_job(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> JobRun:
    """The job run that telemetry is about. Raises Refused: 401 for no or a bad key, 403 for another organization's.

    With an API key, a job that the store has not seen yet is added; its run and job are told later, by `monitor`.
    """
    one_time_key = request.headers.get("X-One-Time-Key", "")
    if one_time_key:
        if not is_key_of(one_time_key, owner, repository, correlation_id):
            raise _unauthorized()
        run = _known(owner, repository, correlation_id)
        if run is None:
            raise refuse(403, "unknown_job_run", "The store has not seen this job, or not lately.")
        return run
    return _with_api_key(request, owner, repository, correlation_id)


def _with_api_key(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> JobRun:
    # Some clients send the key alone, others after a scheme.
    key = live_key(request.headers.get("Authorization", "").strip().rpartition(" ")[2])
    if key is None:
        raise _unauthorized()
    if key.organization.key != owner:
        raise refuse(403, "forbidden", "This API key belongs to another organization.")
    run = _known(owner, repository, correlation_id)
    if run is not None:
        return run
    return job_runs.register(
        organization=key.organization,
        repository=repository,
        run_id="",
        correlation_id=correlation_id,
        job="",
        cluster=cluster_of(request.META),
        at=timezone.now(),
    )


def _known(owner: str, repository: str, correlation_id: str) -> JobRun | None:
    run = queries.known_job_run(owner, repository, correlation_id)
    if run is not None and run.fetched_at is not None:
        return run
    # The job's fetch may still wait in this process, or be just about to be written.
    recorder.flush()
    return queries.known_job_run(owner, repository, correlation_id)


def _unauthorized() -> Refused:
    return refuse(401, "unauthorized", "Send the job's X-One-Time-Key, or an API key of the organization.")
