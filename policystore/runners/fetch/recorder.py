"""Records fetches as job runs behind the answer: a queue in each process, written in batches by one thread.

A batch is written soon after its first fetch, since the job's telemetry may follow at once and is counted under the
workflow and policy that the fetch tells. At most a second of records goes with a process that is killed; one that is
told to stop writes the rest first.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import NamedTuple

from django.db import DatabaseError, DataError, IntegrityError, connection

from policystore.db import connection_slots
from policystore.runners.actions import job_runs
from policystore.web import metrics

logger = logging.getLogger(__name__)


class Pace(NamedTuple):
    """How many fetches are written at once, and how long nothing is written after it."""

    batch: int
    pause_seconds: float


# Written little by little, since all that is answered beside a large batch is answered late. SQLite would fall behind,
# to which a row of a small batch costs half more. Where fetches come faster than that, batches grow and pauses end.
PACES = {"postgresql": Pace(batch=32, pause_seconds=0.005), "sqlite": Pace(batch=1000, pause_seconds=0.1)}
IDLE_SECONDS = 0.05
FAILED_SECONDS = 0.5
LARGEST_BATCH = 1000
# A batch takes this part of what waits, where that is more than one of its pace.
PART_OF_WAITING = 8
MAX_WAITING = 100_000

# The database is there and does not take what a fetch says; it never will.
NEVER_WRITTEN = (DataError, IntegrityError, ValueError, TypeError)

Fetch = job_runs.Fetch
TokenFetch = job_runs.TokenFetch


@dataclass(slots=True)
class _State:
    waiting: deque[Fetch | TokenFetch]
    lock: threading.Lock
    starting: threading.Lock
    automatic: bool = False
    is_running: bool = False


_state = _State(waiting=deque(), lock=threading.Lock(), starting=threading.Lock())


def _begin_anew() -> None:
    # A lock that another thread held when this process was forked would never be released; what waited then is its
    # parent's to write, and its thread is not here.
    _state.waiting, _state.lock, _state.starting = deque(), threading.Lock(), threading.Lock()
    _state.is_running = False


os.register_at_fork(after_in_child=_begin_anew)


def record(fetch: Fetch | TokenFetch) -> None:
    """Queue one fetch; costs no I/O. Past MAX_WAITING (the database is long away) the oldest are dropped, counted."""
    if len(_state.waiting) >= MAX_WAITING:
        _state.waiting.popleft()
        metrics.count_dropped_record()
    _state.waiting.append(fetch)
    if _state.automatic and not _state.is_running:
        _start_thread()


def write_automatically() -> None:
    """From now on a thread of this process, and of each that it forks, writes what is queued as it comes."""
    _state.automatic = True


def flush() -> int:
    """Write what is queued and return how many fetches left the queue; what cannot be written now stays queued.

    A fetch that the database would never take is dropped and logged, so that it holds up no other. Raises DatabaseError
    when the database is away.
    """
    written = 0
    # What is queued meanwhile is for the thread to write.
    for _ in range(len(_state.waiting) // LARGEST_BATCH + 1):
        written += write_some(LARGEST_BATCH)
    return written


def write_some(most: int) -> int:
    """Write the `most` oldest that are queued, as `flush` does, and return how many left the queue."""
    with _state.lock:
        batch = [_state.waiting.popleft() for _ in range(min(most, len(_state.waiting)))]
        if not batch:
            return 0
        try:
            _write(batch)
        except BaseException:
            _state.waiting.extendleft(reversed(batch))
            raise
    return len(batch)


def _write(batch: Sequence[Fetch | TokenFetch]) -> None:
    try:
        _write_all(batch)
    except NEVER_WRITTEN:
        # Writing one twice, should the database go away in the middle, only updates its row.
        for fetch in batch:
            _write_one(fetch)


def _write_all(batch: Sequence[Fetch | TokenFetch]) -> None:
    fetches = [fetch for fetch in batch if isinstance(fetch, job_runs.Fetch)]
    if fetches:
        job_runs.record_fetches(fetches=fetches)
    if len(fetches) < len(batch):
        job_runs.verify_workflow_runs(fetches=[fetch for fetch in batch if isinstance(fetch, job_runs.TokenFetch)])


def _write_one(fetch: Fetch | TokenFetch) -> None:
    try:
        _write_all([fetch])
    except NEVER_WRITTEN:
        logger.exception("A fetch of %s/%s is not recorded", fetch.repository, fetch.workflow[:100])


def clear() -> None:
    """Drop what is queued, unwritten."""
    _state.waiting.clear()


def _start_thread() -> None:
    with _state.starting:
        if _state.is_running:
            return
        threading.Thread(target=_write_forever, name="fetch-recorder", daemon=True).start()
        atexit.register(_write_rest)
        # Granian's workers end as processes of multiprocessing do, which run these and not what atexit has.
        Finalize(None, _write_rest, exitpriority=10)
        # Last, so that the next fetch tries again where no thread could be started.
        _state.is_running = True


def _write_forever() -> None:
    pause, seconds = threading.Event(), IDLE_SECONDS
    while True:
        pause.wait(seconds)
        try:
            metrics.set_records_waiting(len(_state.waiting))
            seconds = _pause_after(_write_batch())
            if connection_slots.release(connection):
                # Each batch now costs a connection that a fetch may be waiting for: fewer and larger ones.
                seconds = max(seconds, FAILED_SECONDS)
        except Exception:
            # Whatever it is, the thread must go on: nobody else writes what this process records.
            logger.exception("Fetches could not be recorded; %d wait", len(_state.waiting))
            connection.close()
            seconds = FAILED_SECONDS


def _pause_after(written: int) -> float:
    if not written:
        return IDLE_SECONDS
    return 0 if len(_state.waiting) >= LARGEST_BATCH else PACES[connection.vendor].pause_seconds


def _write_batch() -> int:
    batch = max(PACES[connection.vendor].batch, len(_state.waiting) // PART_OF_WAITING)
    return write_some(min(batch, LARGEST_BATCH))


def _write_rest() -> None:
    try:
        flush()
    except DatabaseError:
        logger.exception("%d fetches were not recorded", len(_state.waiting))
    finally:
        connection.close()
