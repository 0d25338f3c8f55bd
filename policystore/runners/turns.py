"""Lets the processes of one server write one after the other what none of their callers waits for.

Two that write at once take both processors from those who answer. It is a courtesy: whoever waited long writes all the
same, and the database decides what may be written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE_SECONDS = 0.5
TAKEN = (errno.EAGAIN, errno.EACCES)
LOOK_AGAIN_SECONDS = 0.002


class Turns:
    """The turns of a process and of those that it forks after `begin`; before that, nobody waits."""

    def __init__(self) -> None:
        self._file: int | None = None

    def begin(self) -> None:
        """From here on they take turns. Where no file can be made for it, they go on without."""
        # A bare descriptor: a thread may wait for its turn until the very end of the process.
        with suppress(OSError), tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Within this block the others wait, PATIENCE_SECONDS at most. A turn ends with its process."""
        if self._file is None or not self._wait(self._file):
            yield
            return
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    @staticmethod
    def _wait(file: int) -> bool:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            # Locks of this kind belong to a process, though all have one file from their parent.
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in TAKEN or time.monotonic() > until:
                    return False
                time.sleep(LOOK_AGAIN_SECONDS)
            else:
                return True
