"""Rate limits. `ProcessRateLimit` counts calls in each process; `RateLimit` counts across all processes.

Calls without a key are limited per organization and client network, so that nobody can enumerate what the store knows.
These are counted in each process, because some are answered even while the database is unavailable. A valid key is
never refused a fetch for its rate: that would switch a fleet to audit.

How much telemetry a job, an address or an organization may send is limited across all processes, so the database counts
it. Each process claims a part of a limit at a time and spends it from memory, so that a limit of 3,000 posts a minute
costs 30 statements a minute instead of 3,000. What a process has claimed but not spent is lost when the window ends:
with several processes, a sender may be refused up to one part per process early, but never late.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from django.db import connection

from policystore.runners.models import RateLimitUse

WINDOW_SECONDS = 60
MAX_COUNTED_NAMES = 10_000
MAX_CLAIMS = 20_000
PRUNE_BATCH = 1000
_CLAIM = """
INSERT INTO runners_ratelimituse AS t (name, ends_at, used) VALUES (%s, %s, %s)
ON CONFLICT (name) DO UPDATE SET
    used = excluded.used + CASE WHEN t.ends_at < excluded.ends_at THEN 0 ELSE t.used END,
    ends_at = CASE WHEN t.ends_at < excluded.ends_at THEN excluded.ends_at ELSE t.ends_at END
RETURNING used
"""


class ProcessRateLimit:
    """At most `limit` calls per name in each window of WINDOW_SECONDS, counted in this process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # The window in which each name was last seen, and its calls in that window.
        self._used: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def allows(self, name: str, *, now: float | None = None) -> bool:
        """Count one call; return False if the window's calls are used up. `now` is in monotonic seconds."""
        window = int((time.monotonic() if now is None else now) // WINDOW_SECONDS)
        with self._lock:
            last_window, used = self._used.pop(name, (window, 0))
            used = used + 1 if last_window == window else 1
            self._used[name] = (window, used)
            if len(self._used) > MAX_COUNTED_NAMES:
                self._used.popitem(last=False)
        return used <= self._limit

    def clear(self) -> None:
        """Drop all counts."""
        with self._lock:
            self._used.clear()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` units per name in each window of `seconds`, over all processes, which claim `part` at a time."""

    kind: str
    limit: int
    part: int
    seconds: int = 60


@dataclass(slots=True)
class _Claim:
    """What this process may still spend until `ends_at`; `is_last` means that there is no more to claim.

    Each claim has its own lock, which is held while the database extends the claim, so that a slow statement only holds
    up calls that spend of the same one.
    """

    ends_at: int
    left: int = 0
    is_last: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


_claims: OrderedDict[str, _Claim] = OrderedDict()
# Guards the table, not the claims in it.
_claims_lock = threading.Lock()


def spend(rate_limit: RateLimit, *names: object, units: int = 1, now: float | None = None) -> int:
    """Spend units of the rate limit for these names; return 0, or the number of seconds after which to try again.

    A refused call spends nothing. `now` is a Unix time. May raise DatabaseError.
    """
    at = time.time() if now is None else now
    name = _name(rate_limit, names)
    claim = _claim(name, rate_limit, at)
    with claim.lock:
        if claim.left < units and not claim.is_last:
            _extend(claim, name, rate_limit, units)
        if claim.left < units:
            return max(1, math.ceil(claim.ends_at - at))
        claim.left -= units
        return 0


def prune(*, now: float | None = None) -> int:
    """Delete counts whose window has ended, in batches, and return how many were deleted."""
    at, deleted = int(time.time() if now is None else now), 0
    while True:
        ended = list(RateLimitUse.objects.filter(ends_at__lt=at).values_list("pk", flat=True)[:PRUNE_BATCH])
        deleted += RateLimitUse.objects.filter(pk__in=ended, ends_at__lt=at).delete()[0]
        if len(ended) < PRUNE_BATCH:
            return deleted


def clear() -> None:
    """Drop what this process has claimed."""
    with _claims_lock:
        _claims.clear()


def _name(rate_limit: RateLimit, names: tuple[object, ...]) -> str:
    text = "\0".join(map(str, names)).encode("utf-8", "replace")
    return f"{rate_limit.kind}:{hashlib.blake2b(text, digest_size=16).hexdigest()}"


def _claim(name: str, rate_limit: RateLimit, at: float) -> _Claim:
    """The process's claim for the current window, created if there is none."""
    with _claims_lock:
        claim = _claims.pop(name, None)
        if claim is None or claim.ends_at <= at:
            claim = _Claim(ends_at=(int(at) // rate_limit.seconds + 1) * rate_limit.seconds)
        _claims[name] = claim
        if len(_claims) > MAX_CLAIMS:
            _claims.popitem(last=False)
    return claim


def _extend(claim: _Claim, name: str, rate_limit: RateLimit, units: int) -> None:
    requested = max(rate_limit.part, units - claim.left)
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [name, claim.ends_at, requested])
        used: int = cursor.fetchone()[0]
    granted = max(0, requested - max(0, used - rate_limit.limit))
    claim.left += granted
    claim.is_last = granted < requested
