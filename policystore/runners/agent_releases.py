"""Looks up agent releases for the job hooks at the address that the operator configured.

The hooks follow no redirect and want JSON with a tag and assets, so the answer is fetched and handed on.
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


class ReleaseAway(Exception):
    """The configured address does not answer as it should."""


@dataclass(frozen=True, slots=True)
class _Found:
    body: bytes
    at: float


_found: dict[tuple[str, str, str], _Found] = {}


def look_up(platform: str, version: str) -> bytes:
    """The JSON of a release: `tag` and `assets`. Raises NoRelease or ReleaseAway; the last good answer is kept."""
    base = settings.AGENT_RELEASE_URL.rstrip("/")
    if not base or not (_NAME.fullmatch(platform) and _NAME.fullmatch(version)):
        raise NoRelease
    asked = (base, platform, version)
    known = _found.get(asked)
    if known is not None and time.monotonic() - known.at < FRESH_SECONDS:
        return known.body
    try:
        body = _fetch(f"{base}/{platform}/single/releases/{version}")
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        logger.warning("The agent's release could not be looked up: %s", error)
        if known is not None:
            return known.body
        raise ReleaseAway from error
    if len(_found) > 1000:
        _found.clear()
    _found[asked] = _Found(body, time.monotonic())
    return body


def forget() -> None:
    """Drop what was looked up."""
    _found.clear()


def _fetch(address: str) -> bytes:
    # The address is the operator's own setting, checked at start to be one of the web.
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        body: bytes = response.read(MAX_BYTES)
    release = json.loads(body)
    if not isinstance(release, dict) or not release.get("tag") or not isinstance(release.get("assets"), list):
        raise ValueError("the answer has no tag or no assets")
    return body
