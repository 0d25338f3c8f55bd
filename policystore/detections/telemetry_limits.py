"""How much telemetry is taken: the size of a request, and budgets per job and per address.

A job that has proved itself is limited by its own budget alone, since a fleet may share one address. Jobs that anyone
can make up are limited by the address that they come from, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from policystore.runners.actions import budgets
from policystore.runners.actions.budgets import Budget
from policystore.runners.http import Refused, refuse
from policystore.runners.models import JobRun

MAX_EVENTS = 1000
MAX_UNPACKED_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rate:
    """The budgets of one kind of request."""

    of_job: Budget
    of_address: Budget


BATCHES = Rate(Budget("job-batches", 20, part=1), Budget("address-batches", 600, part=20))
POSTS = Rate(Budget("job-posts", 3000, part=100), Budget("address-posts", 30_000, part=500))


def spend(rate: Rate, run: JobRun, network: str, *, is_proved: bool) -> None:
    """Count one request of the job; before its body is read. Raises Refused with 429 beyond a budget."""
    wait = budgets.spend(rate.of_job, run.pk)
    if wait:
        raise _too_many(wait, f"This job sends more than {rate.of_job.limit:,} requests of this kind a minute.")
    if is_proved:
        return
    wait = budgets.spend(rate.of_address, network)
    if wait:
        raise _too_many(wait, f"This address sends more than {rate.of_address.limit:,} requests of this kind a minute.")


def _too_many(wait: int, message: str) -> Refused:
    return refuse(429, "too_many_requests", f"{message} Try again in {wait} s.", retry_after=wait)
