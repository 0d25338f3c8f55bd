"""Counters of this service, which `/metrics` returns in Prometheus format.

The web and the fetch process call `share_between_workers` before they fork their workers: every worker then counts
for all of them. Any other process counts for itself. No label names an organization, a repository or a policy.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import logging
import os
import shutil
import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, disable_created_metrics, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

logger = logging.getLogger(__name__)


REMEMBERED = "remembered"
# How a fetch may end; `remembered` is a good answer from memory while the database is away.
OTHER = "other"
FETCH_OUTCOMES = ("200", "401", "403", "404", "503", REMEMBERED, OTHER)
# Upper bounds in seconds. The clients wait three seconds; what comes later is no answer to them.
FETCH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)
INGEST_RESULTS = ("stored", "repeated", "malformed")
# Kinds of requests by how their paths begin; what begins with none of these is a page.
PROBES = ("/healthz", "/readyz", "/metrics")
REQUEST_KINDS = {"/v1": "api", "/api/": "api", "/static/": "static", **dict.fromkeys(PROBES, "probe")}
PAGE = "page"
KINDS = sorted({*REQUEST_KINDS.values(), PAGE})
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

disable_created_metrics()  # type: ignore[no-untyped-call]


class _Metrics:
    """The metrics, with every label bound in advance: counting a request neither looks up labels nor adds series."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        fetches = Counter("policystore_fetches", "Policy fetches by outcome.", ["outcome"], registry=self.registry)
        self.fetches = {outcome: fetches.labels(outcome) for outcome in FETCH_OUTCOMES}
        self.fetch_seconds = Histogram(
            "policystore_fetch_seconds", "Time to answer a policy fetch.", buckets=FETCH_SECONDS, registry=self.registry
        )
        requests = Counter(
            "policystore_requests", "Requests by kind and status.", ["kind", "status"], registry=self.registry
        )
        self.requests = {kind: [requests.labels(kind, status) for status in STATUSES] for kind in KINDS}
        seconds = Summary("policystore_request_seconds", "Time to answer a request.", ["kind"], registry=self.registry)
        self.request_seconds = {kind: seconds.labels(kind) for kind in KINDS}
        ingest = Counter(
            "policystore_ingest_events", "Events that agents sent, by result.", ["result"], registry=self.registry
        )
        self.ingest = {result: ingest.labels(result) for result in INGEST_RESULTS}
        self.waiting = Gauge(
            "policystore_recorder_waiting",
            "Answered fetches that wait to be recorded as job runs.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.dropped = Counter(
            "policystore_recorder_dropped",
            "Answered fetches that were never recorded, because too many were waiting.",
            registry=self.registry,
        )


_metrics = _Metrics()
_slots: WorkerSlots | None = None


def share_between_workers() -> None:
    """Count in files that all processes forked from this one share. Raises OSError if they cannot be created."""
    global _metrics, _slots
    slots = WorkerSlots()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(slots.folder)
    shared = values.MultiProcessValue(process_identifier=lambda: slots.number)  # type: ignore[no-untyped-call]
    values.ValueClass = shared
    _metrics, _slots = _Metrics(), slots
    os.register_at_fork(after_in_child=_start_worker)


def _start_worker() -> None:
    if _slots is None:
        return
    try:
        _slots.take()
    except OSError:
        # Answering matters more than counting: two processes that write to one slot overwrite each other's counts.
        logger.exception("A worker has no room for its own counters; the counts in /metrics will be too low")
        return
    # Opens the files of the slot now rather than in the first fetch.
    _metrics.waiting.set(0)


def count_fetch(outcome: str, seconds: float) -> None:
    """Count one answered fetch; an outcome that is not in FETCH_OUTCOMES counts as OTHER."""
    fetches = _metrics.fetches
    fetches.get(outcome, fetches[OTHER]).inc()
    _metrics.fetch_seconds.observe(seconds)


def count_ingest(*, stored: int, repeated: int, malformed: int) -> None:
    """Count the events of one batch."""
    for result, count in zip(INGEST_RESULTS, (stored, repeated, malformed), strict=True):
        _metrics.ingest[result].inc(count)


def count_request(path: str, status: int, seconds: float) -> None:
    """Count one request of any kind, including fetches."""
    kind = kind_of(path)
    _metrics.requests[kind][min(max(status // 100, 1), 5) - 1].inc()
    _metrics.request_seconds[kind].observe(seconds)


def kind_of(path: str) -> str:
    """Which of KINDS a request for this path is."""
    for begins, kind in REQUEST_KINDS.items():
        if path.startswith(begins):
            return kind
    return PAGE


def set_records_waiting(count: int) -> None:
    """Set how many fetches of this process wait to be recorded."""
    _metrics.waiting.set(count)


def count_dropped_record() -> None:
    """Count one fetch that will not be recorded."""
    _metrics.dropped.inc()


def registry() -> CollectorRegistry:
    """A new registry with the metrics of this process, or of all workers of this service."""
    collected = CollectorRegistry()
    if _slots is None:
        collected.register(_metrics.registry)
        return collected
    for number, lock in _slots.abandoned():
        mark_process_dead(number, str(_slots.folder))  # type: ignore[no-untyped-call]
        os.close(lock)
    MultiProcessCollector(collected, str(_slots.folder))  # type: ignore[no-untyped-call]
    return collected


# In memory: writing to a mapped file ends the process when the disk is full.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
STARTING_PREFIX, RUNNING_PREFIX = "policystore-starting-", "policystore-metrics-"
# One file of each kind in every slot, as prometheus_client names them, and the size that it gives to a new one.
FILE_KINDS = ("counter", "gauge_livesum", "histogram", "summary")
FILE_BYTES = 1 << 16


class WorkerSlots:
    """One folder of counter files for this service, and a numbered slot in it for each of its processes.

    prometheus_client names its files after the process id by default, so every restart of a worker leaves files behind
    until the folder is full. A process that takes a slot continues the files of the one that had it before: totals
    never go back, and there are never more files than processes that ran at the same time.

    The process that creates the folder has slot 0; each process forked later takes its own.
    A slot is a lock file that its process keeps locked. The system releases the lock when the process ends, however
    it ends. Raises OSError if the folder cannot be created.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or (SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
        _remove_abandoned(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=STARTING_PREFIX, dir=parent))
        self.take()
        # Visible to `_remove_abandoned` of other services only now that slot 0 is locked.
        self.folder = self.folder.rename(parent / self.folder.name.replace(STARTING_PREFIX, RUNNING_PREFIX))
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
    for folder in parent.glob(f"{RUNNING_PREFIX}*"):
        try:
            lock = _locked(folder / "0.lock")
        except OSError:
            # It belongs to another user, or was removed just now.
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
