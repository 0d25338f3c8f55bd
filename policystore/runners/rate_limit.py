"""Rate limits on calls without a key, for each organization and client network, so that nobody can enumerate.

A valid key is never refused for its rate: that would switch a fleet to audit. The counts live in each process.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

WINDOW_SECONDS = 60
REMEMBERED = 10_000


class Budget:
    """At most `limit` calls for each name in a window of a minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._used: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def spend(self, name: str, *, now: float | None = None) -> bool:
        """Count one call; False when the window's calls are used up."""
        window = int((time.monotonic() if now is None else now) // WINDOW_SECONDS)
        with self._lock:
            of, used = self._used.pop(name, (window, 0))
            used = used + 1 if of == window else 1
            self._used[name] = (window, used)
            if len(self._used) > REMEMBERED:
                self._used.popitem(last=False)
        return used <= self._limit

    def forget(self) -> None:
        """Start over."""
        with self._lock:
            self._used.clear()
