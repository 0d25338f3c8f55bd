"""The key that a job's telemetry carries: derived, not stored, so that asking for it twice gives the same one."""

from __future__ import annotations

import base64
import hashlib
import hmac

from django.conf import settings


def one_time_key(owner: str, repository: str, correlation_id: str) -> str:
    """The key of one job, `ps_otk_` and 43 characters; owner and repository compare without case."""
    said = "\0".join(("one-time-key", owner.lower(), repository.lower(), correlation_id))
    digest = hmac.new(settings.API_KEY_SECRET.encode(), said.encode(), hashlib.sha256).digest()
    return "ps_otk_" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_key_of(key: str, owner: str, repository: str, correlation_id: str) -> bool:
    """Whether `key` is the one that `monitor` gave this job."""
    return hmac.compare_digest(key.encode(), one_time_key(owner, repository, correlation_id).encode())
