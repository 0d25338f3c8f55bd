"""Delivers what is due, message after message, until nothing is or the time for it is used up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from django.utils import timezone

from policystore.accounts.vault import Undecipherable
from policystore.outbox import outcomes
from policystore.outbox.actions import deliveries
from policystore.outbox.actions.deliveries import Claim
from policystore.outbox.channels import SENDERS
from policystore.outbox.outcomes import Outcome, Result
from policystore.outbox.sending import NotSent

logger = logging.getLogger(__name__)

# A turn of the worker; with the longest attempt it ends before a worker that was asked to stop is killed.
TURN_SECONDS = 4.0


def deliver_due(*, seconds: float = TURN_SECONDS) -> int:
    """Deliver what is due for about so many seconds; returns how many attempts were made.

    Killed at any point this loses nothing: what was claimed and not finished is sent again, under the same id.
    """
    ends, attempts = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        claimed = deliveries.claim()
        if claimed is None:
            break
        deliver(claimed)
        attempts += 1
    return attempts


def deliver(claimed: Claim) -> Outcome:
    """Send what was claimed and note what came of it."""
    started_at, started = timezone.now(), time.monotonic()
    outcome = _send(claimed)
    duration = timedelta(seconds=time.monotonic() - started)
    deliveries.finish(claimed=claimed, outcome=outcome, started_at=started_at, duration=duration)
    return outcome


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
    return outcomes.without(outcome, secrets)
