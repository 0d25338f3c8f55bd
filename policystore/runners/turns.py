"""Lets the processes of one server write one after the other what none of their callers waits for.

Two that write at once take both processors from those who answer. It is a courtesy: whoever waited long writes all the
same, and the database decides what may be written.
"""

from __future__ import annotations

import errno
import fcntl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

PATIENCE_SECONDS = 0.5
TAKEN = (errno.EAGAIN, errno.EACCES)
LOOK_AGAIN_SECONDS = 0.002


class Turns:
    """The turns of a process and of those that it forks after `begin`; before that, nobody waits."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def begin(self) -> None:
        """From here on they take turns. Where no file can be made for it, they go on without."""
        with suppress(OSError):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 it is open as long as the process lives

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
    def _wait(file: IO[bytes]) -> bool:
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
