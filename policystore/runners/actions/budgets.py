"""Rate limits that hold across all processes: how much telemetry a job, an address or an organization may send.

The database counts. Each process claims a part of a budget at a time and spends it from memory, so that a limit of
3,000 posts a minute costs 30 statements a minute and not 3,000. What a process has claimed and not spent is lost when
the window ends: with several processes a sender may be refused up to one part per process early, never late.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from django.db import connection

from policystore.runners.models import BudgetUse

REMEMBERED = 20_000
PRUNE_STEP = 1000
_CLAIM = """
INSERT INTO runners_budgetuse AS t (name, ends_at, used) VALUES (%s, %s, %s)
ON CONFLICT (name) DO UPDATE SET
    used = excluded.used + CASE WHEN t.ends_at < excluded.ends_at THEN 0 ELSE t.used END,
    ends_at = CASE WHEN t.ends_at < excluded.ends_at THEN excluded.ends_at ELSE t.ends_at END
RETURNING used
"""


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit` units in each window of `seconds`, for each name that it is spent for.

    Processes claim `part` units at a time.
    """

    kind: str
    limit: int
    part: int
    seconds: int = 60


@dataclass(slots=True)
class _Claimed:
    """What this process may still spend until `ends_at`; `is_last` says that the budget has no more to claim."""

    ends_at: int
    left: int = 0
    is_last: bool = False


_claims: OrderedDict[str, _Claimed] = OrderedDict()
_lock = threading.Lock()


def spend(budget: Budget, *names: object, units: int = 1, now: float | None = None) -> int:
    """Spend units of the budget of these names; returns 0, or after how many seconds to try again.

    A refused call spends nothing. May raise DatabaseError.
    """
    at = time.time() if now is None else now
    name = _name(budget, names)
    with _lock:
        claimed = _claims.pop(name, None)
        if claimed is None or claimed.ends_at <= at:
            claimed = _Claimed(ends_at=(int(at) // budget.seconds + 1) * budget.seconds)
        _claims[name] = claimed
        if len(_claims) > REMEMBERED:
            _claims.popitem(last=False)
        if claimed.left < units and not claimed.is_last:
            _claim(budget, name, claimed, units)
        if claimed.left < units:
            return max(1, math.ceil(claimed.ends_at - at))
        claimed.left -= units
        return 0


def prune(*, now: float | None = None) -> int:
    """Delete counts whose window has ended, in steps; returns how many."""
    at, deleted = int(time.time() if now is None else now), 0
    while True:
        ended = list(BudgetUse.objects.filter(ends_at__lt=at).values_list("pk", flat=True)[:PRUNE_STEP])
        deleted += BudgetUse.objects.filter(pk__in=ended, ends_at__lt=at).delete()[0]
        if len(ended) < PRUNE_STEP:
            return deleted


def clear() -> None:
    """Drop what this process has claimed."""
    with _lock:
        _claims.clear()


def _name(budget: Budget, names: tuple[object, ...]) -> str:
    text = "\0".join(map(str, names)).encode("utf-8", "replace")
    return f"{budget.kind}:{hashlib.blake2b(text, digest_size=16).hexdigest()}"


def _claim(budget: Budget, name: str, claimed: _Claimed, units: int) -> None:
    wanted = max(budget.part, units - claimed.left)
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [name, claimed.ends_at, wanted])
        used: int = cursor.fetchone()[0]
    granted = max(0, wanted - max(0, used - budget.limit))
    claimed.left += granted
    claimed.is_last = granted < wanted
