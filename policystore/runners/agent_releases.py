"""Looks up agent releases for the job hooks at the address that the operator configured.

The hooks do not follow redirects and expect JSON with a tag and assets, so the store fetches the answer and passes it
on.
"""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

from django.conf import settings

logger = logging.getLogger(__name__)

FRESH_SECONDS = 5 * 60
TIMEOUT_SECONDS = 2
MAX_BYTES = 512 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


class NoRelease(Exception):
    """There is no such release, or no address to look it up at."""


class ReleaseUnavailable(Exception):
    """The configured address does not answer, or not with a release."""


@dataclass(frozen=True, slots=True)
class _CachedRelease:
    body: bytes
    at: float


_cache: dict[tuple[str, str, str], _CachedRelease] = {}


def look_up(platform: str, version: str) -> bytes:
    """Return the JSON of a release: `tag` and `assets`; the last good answer is kept as a fallback.

    Raises NoRelease or ReleaseUnavailable.
    """
    base = settings.AGENT_RELEASE_URL.rstrip("/")
    if not base or not (_NAME.fullmatch(platform) and _NAME.fullmatch(version)):
        raise NoRelease
    cache_key = (base, platform, version)
    cached = _cache.get(cache_key)
    if cached is not None and time.monotonic() - cached.at < FRESH_SECONDS:
        return cached.body
    try:
        body = _fetch(f"{base}/{platform}/single/releases/{version}")
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        logger.warning("The agent's release could not be looked up: %s", error)
        if cached is not None:
            return cached.body
        raise ReleaseUnavailable from error
    if len(_cache) > 1000:
        _cache.clear()
    _cache[cache_key] = _CachedRelease(body, time.monotonic())
    return body


def clear_cache() -> None:
    """Drop the cached releases."""
    _cache.clear()


def _fetch(address: str) -> bytes:
    # The address is the operator's own setting; the settings accept only HTTP and HTTPS addresses.
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        body: bytes = response.read(MAX_BYTES)
    release = json.loads(body)
    if not isinstance(release, dict) or not release.get("tag") or not isinstance(release.get("assets"), list):
        raise ValueError("the answer has no tag or no assets")
    return body
