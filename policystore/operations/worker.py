"""The worker process: the schedule of everything that the store does in the background."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from django.conf import settings
from django.db import close_old_connections

from policystore.accounts import sign_in
from policystore.audit_log import hash_chain, signed_heads
from policystore.detections import actions as detection_actions
from policystore.integrations import delivery, outbox
from policystore.integrity.comparing import Watch
from policystore.operations.models import Heartbeat
from policystore.policies import break_glass, exceptions
from policystore.policies.as_code import management_api
from policystore.runners import rate_limit
from policystore.traffic import retention, staging_results
from policystore.traffic.impact import bitmap_store

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class Job:
    """A task to do every so many seconds; `due` is the monotonic time of its next turn.

    Several workers may run at the same time, so `work` must be safe to do twice. A job that `continues` returns True
    when it stopped before everything was done; it is then due again right after the other jobs.
    `close` completes what its last turn left running, before the worker ends.
    """

    name: str
    every: float
    work: Callable[[], object]
    continues: bool = False
    close: Callable[[], object] = lambda: None
    due: float = 0.0


def _compare_with_history(watch: Watch) -> None:
    if watch():
        Heartbeat.beat(Heartbeat.INTEGRITY)


def jobs() -> list[Job]:
    """Return everything that the worker does; to add a job, add a line."""
    deliverer = delivery.Deliverer()
    sessions = import_module(settings.SESSION_ENGINE).SessionStore
    days = settings.EVENT_RETENTION_DAYS
    return [
        Job("record a heartbeat", 5, partial(Heartbeat.beat, Heartbeat.WORKER)),
        Job("clear expired sessions", 3600, sessions.clear_expired),
        Job("clear expired sign-in links", 3600, sign_in.prune_links),
        Job("create partitions of network events", 3600, partial(retention.create_partitions, retention_days=days)),
        Job("prune old network events", 300, partial(retention.prune_events, days=days), continues=True),
        Job("delete expired job runs", 300, retention.delete_expired_runs, continues=True),
        Job("delete expired unverified job runs", 60, retention.delete_unverified_runs, continues=True),
        Job("prune old deliveries", 300, partial(outbox.prune, days=days), continues=True),
        Job("prune counts of past rate limit windows", 60, rate_limit.prune),
        Job("record expired break glasses", 5, break_glass.record_expired),
        Job("record expired exceptions", 10, exceptions.record_expired),
        Job("detach what no attachment has replaced in time", 10, management_api.detach_due),
        Job("seal events of the history", 5, hash_chain.seal_waiting),
        Job("verify the history", 30, hash_chain.check_all),
        Job("compare what runners get with the history", 1, partial(_compare_with_history, Watch())),
        Job("sign heads of the history", 300, signed_heads.sign_new),
        Job("count calls that came before their job was known", 10, detection_actions.settle_early),
        Job("release reports of jobs that have been verified", 10, detection_actions.release_verified),
        Job("judge observed calls by staged versions", 10, staging_results.catch_up),
        Job("delete results of versions that are no longer staged", 600, staging_results.delete_old, continues=True),
        Job("add observed calls to run bitmaps", 20, bitmap_store.catch_up),
        Job("deliver what is due to integrations", 1, deliverer.turn, close=deliverer.close),
    ]


def run_due(scheduled: Sequence[Job], *, now: float) -> None:
    """Do what is due; a job that fails is logged, has its next turn as usual, and keeps no other from its own."""
    for job in scheduled:
        if job.due > now:
            continue
        job.due = now + job.every
        has_more = _run(job, job.work)
        if job.continues and has_more:
            job.due = now


def _run(job: Job, work: Callable[[], object]) -> object:
    close_old_connections()
    try:
        return work()
    except Exception:
        logger.exception("The job to %s failed", job.name)
        return None
    finally:
        close_old_connections()


def run_until(should_stop: Callable[[], bool], *, scheduled: Sequence[Job], pause: float = PAUSE_SECONDS) -> None:
    """Do what is due until `should_stop` returns True; a job that has begun is finished."""
    while not should_stop():
        run_due(scheduled, now=time.monotonic())
        time.sleep(pause)
    for job in scheduled:
        _run(job, job.close)
