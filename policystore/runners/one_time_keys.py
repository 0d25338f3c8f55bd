"""One-time keys, which a job's telemetry carries: derived, not stored, so that the same job always gets the same key.

A key names the run as well as the correlation id: a runner that takes one job after another keeps its correlation id,
and an event that arrives late must be counted for the job that it was sent for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from django.conf import settings

PREFIX = "ps_otk_"


def one_time_key(owner: str, repository: str, correlation_id: str, run_id: str) -> str:
    """Return the key of a job, `ps_otk_RUNID_` and 43 characters; the case of owner and repository does not matter."""
    identity = "\0".join(("one-time-key", owner.lower(), repository.lower(), correlation_id, run_id))
    digest = hmac.new(settings.API_KEY_SECRET.encode(), identity.encode(), hashlib.sha256).digest()
    return f"{PREFIX}{run_id}_{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def run_id_of(key: str, owner: str, repository: str, correlation_id: str) -> str | None:
    """Return the id of the run that a key belongs to, or None if it is not the key of such a job."""
    run_id = key.removeprefix(PREFIX).partition("_")[0]
    expected = one_time_key(owner, repository, correlation_id, run_id)
    return run_id if hmac.compare_digest(key.encode(), expected.encode()) else None
