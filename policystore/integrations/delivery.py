"""Delivers what is due to all integrations side by side, so that a slow or failing receiver delays nobody else.

Threads only send. Everything that reads or writes the database happens on the caller's thread, so a worker needs one
connection, however many receivers it talks to, and SQLite's writes stay short.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from django.utils import timezone

from policystore.accounts.encryption import Undecipherable
from policystore.integrations import http_client, outbox
from policystore.integrations.channels import s3, slack, webhook
from policystore.integrations.http_client import NotSent, Outcome, Result
from policystore.integrations.models import S3, SLACK, WEBHOOK, Integration, OutboxMessage
from policystore.integrations.outbox import Claim

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Sends messages of one integration, as many as its kind sends together, and returns the result."""

    def __call__(
        self, integration: Integration, secrets: Mapping[str, object], messages: Sequence[OutboxMessage]
    ) -> Outcome: ...


# To add a kind, add a module to `channels` and a line here.
SENDERS: Mapping[str, Sender] = {WEBHOOK: webhook.send, SLACK: slack.send, S3: s3.send}

# Of one process. Each claim is of another integration.
MAX_IN_FLIGHT = 16
# A turn of the worker takes this long only while receivers answer quickly.
TURN_SECONDS = 4.0
# How long a turn waits for an answer when there is nothing else to deliver.
PATIENCE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver a claim, and its result."""

    claimed: Claim
    outcome: Outcome
    started_at: datetime
    duration: timedelta


class Deliverer:
    """Sends claims on threads; each turn starts what is due and records what was answered since the last turn."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=MAX_IN_FLIGHT, thread_name_prefix="deliver")
        self._running: set[Future[Attempt]] = set()

    def turn(self, *, seconds: float = TURN_SECONDS, patience: float = PATIENCE_SECONDS) -> int:
        """Deliver for at most about so many seconds; returns how many attempts were completed.

        It ends early where nothing is due and no receiver answers within `patience` seconds.
        """
        ends, completed = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            self._start()
            done = self._finish(timeout=min(patience, max(ends - time.monotonic(), 0.0)))
            completed += done
            if not done:
                break
        return completed

    def close(self) -> int:
        """Wait for the receivers that are being called, record what they answer, and end the threads."""
        completed = 0
        while self._running:
            completed += self._finish(timeout=None)
        self._pool.shutdown()
        return completed

    def _start(self) -> None:
        while len(self._running) < MAX_IN_FLIGHT:
            claimed = outbox.claim()
            if claimed is None:
                return
            self._running.add(self._pool.submit(attempt, claimed))

    def _finish(self, *, timeout: float | None) -> int:
        done, self._running = wait(self._running, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in done:
            made = future.result()
            outbox.finish(
                claimed=made.claimed, outcome=made.outcome, started_at=made.started_at, duration=made.duration
            )
        return len(done)


def deliver_due(*, seconds: float = TURN_SECONDS) -> int:
    """Deliver what is due for about so many seconds, and wait for what was begun; returns how many attempts were made.

    Killed at any point this loses nothing: what was claimed and not finished is sent again, under the same id.
    """
    deliverer = Deliverer()
    try:
        completed = deliverer.turn(seconds=seconds, patience=seconds)
    finally:
        left = deliverer.close()
    return completed + left


def attempt(claimed: Claim) -> Attempt:
    """Send what was claimed. Never raises; touches no database."""
    started_at, started = timezone.now(), time.monotonic()
    outcome = _send(claimed)
    return Attempt(claimed, outcome, started_at, timedelta(seconds=time.monotonic() - started))


def _send(claimed: Claim) -> Outcome:
    integration = claimed.integration
    secrets: Mapping[str, object] = {}
    try:
        secrets = integration.secrets
        outcome = SENDERS[integration.kind](integration, secrets, claimed.messages)
    except (NotSent, Undecipherable) as problem:
        outcome = Outcome(Result.FAILED, error=str(problem))
    except Exception:
        # Whatever it is, the message waits for its next turn, and others get theirs.
        logger.exception("Message %s could not be sent", claimed.messages[0].webhook_id)
        outcome = Outcome(Result.FAILED, error="The store itself failed to send this; its log says why.")
    return http_client.redact(outcome, secrets)
