"""Repeats a step that deletes or updates a batch of rows, in short transactions, so that no writer waits long."""

from __future__ import annotations

import time
from collections.abc import Callable

# Between two turns the worker does its other jobs.
TURN_SECONDS = 1.0
# SQLite has one writer at a time: a pause after each batch lets the others write.
PAUSE_PART = 0.25


def repeat(step: Callable[[], int], *, size: int, seconds: float = TURN_SECONDS) -> bool:
    """Call `step`, which handles up to `size` rows and returns how many, until it finds fewer.

    Stops after so many seconds; returns True if rows may be left.
    """
    until = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if step() < size:
            return False
        ended = time.monotonic()
        if ended >= until:
            return True
        time.sleep((ended - began) * PAUSE_PART)
