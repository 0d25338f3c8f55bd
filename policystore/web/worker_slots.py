"""One folder of counter files for each service, and a numbered slot in it for each of its processes.

prometheus_client names its files after the process id by default, so every restart of a worker leaves files behind
until the folder is full. A process that takes a slot continues the files of the one that had it before: totals never
go back, and there are never more files than processes that ran at the same time.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import shutil
import tempfile
from pathlib import Path

# In memory: writing to a mapped file ends the process when the disk is full.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
STARTING, RUNNING = "policystore-starting-", "policystore-metrics-"
# One file of each kind in every slot, as prometheus_client names them, and the size that it gives to a new one.
FILE_KINDS = ("counter", "gauge_livesum", "histogram", "summary")
FILE_BYTES = 1 << 16


class WorkerSlots:
    """The folder of this service. The process that creates it has slot 0; each process forked later takes its own.

    A slot is a lock file that its process keeps locked. The system releases the lock when the process ends, however
    it ends. Raises OSError if the folder cannot be created.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or (SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
        _remove_abandoned(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=STARTING, dir=parent))
        self.take()
        # Visible to `_remove_abandoned` of other services only now that slot 0 is locked.
        self.folder = self.folder.rename(parent / self.folder.name.replace(STARTING, RUNNING))
        atexit.register(self._remove, os.getpid())

    def take(self) -> None:
        """Take the first free slot for this process.

        Raises OSError if there is no room for its files. The process then still has the slot of its parent.
        """
        for number in itertools.count():
            lock = _locked(self._lock_file(number))
            if lock is None:
                continue
            try:
                self._reserve(number)
            except OSError:
                os.close(lock)
                raise
            self.number, self._lock = number, lock
            return

    def abandoned(self) -> list[tuple[int, int]]:
        """Lock the slots whose process has ended; returns (number, lock), to be closed with os.close."""
        numbers = [int(file.stem) for file in self.folder.glob("*.lock")]
        locks = [(number, _locked(self._lock_file(number))) for number in numbers]
        return [(number, lock) for number, lock in locks if lock is not None]

    def _lock_file(self, number: int) -> Path:
        return self.folder / f"{number}.lock"

    def _reserve(self, number: int) -> None:
        """Allocate the files now, so that writing to them needs no more room."""
        for kind in FILE_KINDS:
            with (self.folder / f"{kind}_{number}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, FILE_BYTES)

    def _remove(self, owner: int) -> None:
        # Processes that were forked run the exit handlers of their parent, too.
        if os.getpid() == owner:
            shutil.rmtree(self.folder, ignore_errors=True)


def _locked(file: Path) -> int | None:
    """The descriptor of the file, locked; None if another process has locked it."""
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of services that were killed."""
    for folder in parent.glob(f"{RUNNING}*"):
        try:
            lock = _locked(folder / "0.lock")
        except OSError:
            # It belongs to another user, or was removed just now.
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
