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
from typing import Any

from django.conf import settings

logger = logging.getLogger(__name__)

FRESH_SECONDS = 5 * 60
# A request waits for the address while it holds one of the few slots for requests that Django answers.
PAUSE_AFTER_FAILURE_SECONDS = 30
TIMEOUT_SECONDS = 2
MAX_BYTES = 512 * 1024
MAX_CACHED = 1000
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
# Until when a release is not looked up again after a failure. Anyone can ask for a release that does not exist, so
# failures must not push releases out of the cache.
_paused_until: dict[tuple[str, str, str], float] = {}


def look_up(platform: str, version: str) -> bytes:
    """Return the JSON of a release: `tag` and `assets`; the last good answer is kept as a fallback.

    Raises NoRelease or ReleaseUnavailable.
    """
    base = settings.AGENT_RELEASE_URL.rstrip("/")
    if not base or not (_NAME.fullmatch(platform) and _NAME.fullmatch(version)):
        raise NoRelease
    cache_key = (base, platform, version)
    cached, now = _cache.get(cache_key), time.monotonic()
    if cached is not None and now - cached.at < FRESH_SECONDS:
        return cached.body
    if now >= _paused_until.get(cache_key, now):
        try:
            body = _fetch(f"{base}/{platform}/single/releases/{version}")
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            logger.warning("The agent's release could not be looked up: %s", error)
            _make_room(_paused_until)
            _paused_until[cache_key] = time.monotonic() + PAUSE_AFTER_FAILURE_SECONDS
        else:
            _make_room(_cache)
            _cache[cache_key] = _CachedRelease(body, time.monotonic())
            return body
    if cached is None:
        raise ReleaseUnavailable
    return cached.body


def clear_cache() -> None:
    """Drop the cached releases and failures."""
    _cache.clear()
    _paused_until.clear()


def _make_room(cache: dict[tuple[str, str, str], Any]) -> None:
    if len(cache) > MAX_CACHED:
        cache.clear()


def _fetch(address: str) -> bytes:
    # The address is the operator's own setting; the settings accept only HTTP and HTTPS addresses.
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        body: bytes = response.read(MAX_BYTES)
    release = json.loads(body)
    if not isinstance(release, dict) or not release.get("tag") or not isinstance(release.get("assets"), list):
        raise ValueError("the answer has no tag or no assets")
    return body
