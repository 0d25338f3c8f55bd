"""The line that each request leaves in the log, written alone or, where a process is busy, with some others.

What writes a line is a long way through much code, which a fetch would wait for as long as for all else that it does in
Python; several at once cost little more than one. Lines that are held back are written as soon as the process has
nothing else to do, before it does something that may take long, and at the latest with the first line that comes
HELD_SECONDS after the first of them.
"""

from __future__ import annotations

import atexit
import logging
import time

from policystore.logs import Access, Answered

logger = logging.getLogger("policystore.access")

HELD_SECONDS = 0.05
# More than this at once, and another process that logs to the same pipe might write into the middle of a line (PIPE_BUF
# in POSIX's write).
HELD_BYTES = 4096
# What a line has beside its texts, at most.
_LINE_BYTES = 200


class _Held:
    """The lines that wait; only one thread of a process may hold lines back."""

    def __init__(self) -> None:
        self.is_allowed = False
        self.answered: list[Answered] = []
        self.bytes = 0


_held = _Held()


def hold_back() -> None:
    """From now on lines may wait: this process has one thread that answers, and calls `write` when it has time."""
    _held.is_allowed = True
    atexit.register(write)


def hold_nothing_back() -> None:
    """From now on each line is written at once."""
    write()
    _held.is_allowed = False
    atexit.unregister(write)


def tell(*, request_id: str, method: str, path: str, status: int, milliseconds: float) -> None:
    """One request was answered; `path` has no query and no secret."""
    one = Answered(time.time(), request_id, method, path, status, milliseconds)
    if not _held.is_allowed:
        logger.handle(Access([one]))
        return
    size = _LINE_BYTES + len(path) + len(request_id)
    if _held.bytes + size > HELD_BYTES:
        write()
    _held.answered.append(one)
    _held.bytes += size
    if one.at - _held.answered[0].at > HELD_SECONDS:
        write()


def write() -> None:
    """Write what waits."""
    answered = _held.answered
    if answered:
        _held.answered, _held.bytes = [], 0
        logger.handle(Access(answered))
