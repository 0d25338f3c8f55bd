"""Limits on telemetry: the size of a request, and rate limits per job, per address and per organization.

A verified job only has its own limit, since a fleet may share one address. Unverified jobs, which anyone can invent,
are also limited per address, and together per organization.
"""

from __future__ import annotations

from dataclasses import dataclass

from policystore.runners import rate_limit
from policystore.runners.models import JobRun, Verification
from policystore.runners.rate_limit import RateLimit
from policystore.web.json_api import Refused, refuse

MAX_EVENTS = 1000
MAX_UNPACKED_BYTES = 4 * 1024 * 1024
MAX_EVENTS_OF_JOB = 100_000
RETRY_FULL_JOB_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate limits of one kind of request."""

    of_job: RateLimit
    of_address: RateLimit


# Events and reports of an organization's unverified jobs. They are deleted after a day, so this limits their disk use.
UNVERIFIED_A_DAY = RateLimit("unverified-events", 250_000, part=2000, seconds=24 * 60 * 60)
BATCHES = Rate(RateLimit("job-batches", 20, part=1), RateLimit("address-batches", 600, part=20))
# Each job of a matrix, which has at most 256, sends one report.
REPORTS = RateLimit("workflow-run-reports", 600, part=10)
POSTS = Rate(RateLimit("job-posts", 3000, part=100), RateLimit("address-posts", 30_000, part=500))


def spend(rate: Rate, run: JobRun, network: str) -> None:
    """Count one request of the job, before its body is read. Raises Refused (429) over a limit."""
    refuse_full(run)
    wait = rate_limit.spend(rate.of_job, run.pk)
    if wait:
        raise _too_many(wait, f"This job sends more than {rate.of_job.limit:,} requests of this kind a minute.")
    if run.verified_by not in ("", Verification.CLUSTER):
        return
    wait = rate_limit.spend(rate.of_address, network)
    if wait:
        raise _too_many(wait, f"This address sends more than {rate.of_address.limit:,} requests of this kind a minute.")


def spend_report(*names: object) -> None:
    """Count one report of a workflow run that a token names. Raises Refused (429) over the limit."""
    wait = rate_limit.spend(REPORTS, *names)
    if wait:
        raise _too_many(wait, f"This workflow run sends more than {REPORTS.limit:,} reports a minute.")


def refuse_full(run: JobRun) -> None:
    """Raise Refused (429) if the job has sent as many events as one job may."""
    if run.stored_events >= MAX_EVENTS_OF_JOB:
        message = f"This job has sent {MAX_EVENTS_OF_JOB:,} events, the most for one job."
        raise _too_many(RETRY_FULL_JOB_SECONDS, message)


def spend_unverified(run: JobRun, count: int) -> None:
    """Count events or reports of a job if it is unverified. Raises Refused (429) over the limit."""
    wait = 0 if run.is_verified else rate_limit.spend(UNVERIFIED_A_DAY, run.organization_id, units=count)
    if wait:
        raise _too_many(
            wait, f"Unverified jobs of this organization have sent {UNVERIFIED_A_DAY.limit:,} events today."
        )


def _too_many(wait: int, message: str) -> Refused:
    return refuse(429, "too_many_requests", f"{message} Try again in {wait} s.", retry_after=wait)
