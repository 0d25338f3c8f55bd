"""Records fetches as job runs after they are answered: a queue in each process, written in batches by one thread.

The workers of a `fetch` process pass theirs on to one process that writes for all of them. A thread that writes would
compete with their requests for Python's lock: p99 was half as high again, and a fifth fewer fetches were answered.

A batch is written soon after its first fetch, because the job's telemetry may follow immediately and is counted under
the workflow and policy of the fetch. A process that is killed loses at most a second of records; one that is asked to
stop writes the rest first.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import pickle
import signal
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.util import Finalize
from typing import NamedTuple

from django.db import DatabaseError, DataError, IntegrityError, connection

from policystore.db import connection_slots, vendor
from policystore.runners import job_runs
from policystore.web import metrics

logger = logging.getLogger(__name__)


class Pace(NamedTuple):
    """How many fetches a batch has, and the pause after it."""

    batch: int
    pause_seconds: float


# Batches are small, because requests that are answered during a large batch are answered late. On SQLite they are
# larger: a row of a small batch costs half as much again, so writing would fall behind. If fetches arrive faster than
# they are written, batches grow and pauses end.
PACE_ON_POSTGRESQL, PACE_ON_SQLITE = Pace(batch=128, pause_seconds=0.05), Pace(batch=1000, pause_seconds=0.1)
PACE_OF_PASSING_ON = Pace(batch=256, pause_seconds=0.02)
IDLE_SECONDS = 0.02
FAILED_SECONDS = 0.5
LARGEST_BATCH = 1000
# A batch takes at least this fraction of the queue: one in PART_OF_QUEUE.
PART_OF_QUEUE = 8
MAX_QUEUED = 100_000
# Fetches in one message between processes. If it is too long for the socket, the sender records them itself.
MESSAGE_FETCHES = 32
MESSAGE_BYTES = 1 << 20
STOP_SECONDS = 10

# The database is available but refuses the values of a fetch, and always will.
REFUSED_FOR_GOOD = (DataError, IntegrityError, ValueError, TypeError)

Fetch = job_runs.Fetch
TokenFetch = job_runs.TokenFetch


@dataclass(slots=True)
class _State:
    queue: deque[Fetch | TokenFetch]
    lock: threading.Lock
    starting: threading.Lock
    writer: socket.socket | None = None
    automatic: bool = False
    is_running: bool = False


_state = _State(queue=deque(), lock=threading.Lock(), starting=threading.Lock())


def _reset_after_fork() -> None:
    # A lock that another thread held during the fork would never be released. The parent writes what was queued then,
    # and its thread does not exist here.
    _state.queue, _state.lock, _state.starting = deque(), threading.Lock(), threading.Lock()
    _state.is_running = False


os.register_at_fork(after_in_child=_reset_after_fork)


def record(fetch: Fetch | TokenFetch) -> None:
    """Queue one fetch without any I/O. Beyond MAX_QUEUED (a long outage), the oldest is dropped and counted."""
    if len(_state.queue) >= MAX_QUEUED:
        _state.queue.popleft()
        metrics.count_dropped_record()
    _state.queue.append(fetch)
    if _state.automatic and not _state.is_running:
        _start_thread()


def write_automatically() -> None:
    """From now on, start a thread with the first queued fetch of this process, or of one that it forks, to write it."""
    _state.automatic = True


class WriterProcess:
    """Writes what this process, and those that it forks later, record from now on.

    It ends after all of them, so that nothing is lost if all are asked to stop at once. If it is killed, the others
    write what they record themselves.
    """

    def __init__(self) -> None:
        incoming, outgoing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A larger message is refused, instead of being cut off at the other end. The kernel doubles the number.
        outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES // 4)
        self._process = get_context("fork").Process(target=_write_for_others, args=(incoming, outgoing))
        self._process.start()
        incoming.close()
        _state.writer = outgoing

    def stop(self) -> None:
        """Wait until everything is written, for STOP_SECONDS; call this after the processes that record have ended."""
        if _state.writer is not None:
            _state.writer.close()
        self._process.join(STOP_SECONDS)
        if self._process.is_alive():
            logger.error("The process that records fetches does not end; what it has not written yet is lost")
            self._process.kill()
            self._process.join()


def _write_for_others(incoming: socket.socket, outgoing: socket.socket) -> None:
    outgoing.close()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    write_automatically()
    # An empty message: no process is left that could send one.
    while message := incoming.recv(MESSAGE_BYTES):
        try:
            for fetch in pickle.loads(message):  # noqa: S301 from a process of this service
                record(fetch)
        except Exception:
            # Nothing else records what this process gets.
            logger.exception("Some fetches are not recorded")


def flush() -> int:
    """Write the queue and return how many fetches left it; what cannot be written now stays queued.

    A fetch that the database would always refuse is dropped and logged, so that it does not hold up others. Raises
    DatabaseError if the database is unavailable.
    """
    written = 0
    # The thread writes what is queued in the meantime.
    for _ in range(len(_state.queue) // LARGEST_BATCH + 1):
        written += write_some(LARGEST_BATCH)
    return written


def write_some(limit: int) -> int:
    """Write up to `limit` of the oldest fetches, as `flush` does, and return how many left the queue."""
    with _state.lock:
        batch = [_state.queue.popleft() for _ in range(min(limit, len(_state.queue)))]
        if not batch:
            return 0
        try:
            _write(batch)
        except BaseException:
            _state.queue.extendleft(reversed(batch))
            raise
    return len(batch)


def _write(batch: Sequence[Fetch | TokenFetch]) -> None:
    if _state.writer is not None:
        batch = _pass_on(batch, _state.writer)
        if not batch:
            return
    try:
        _write_all(batch)
    except REFUSED_FOR_GOOD:
        # If the database becomes unavailable meanwhile, some are written twice, which only updates their rows.
        for fetch in batch:
            _write_one(fetch)


def _pass_on(batch: Sequence[Fetch | TokenFetch], writer: socket.socket) -> Sequence[Fetch | TokenFetch]:
    """Send fetches to the process that writes them; return those that were not sent."""
    for start in range(0, len(batch), MESSAGE_FETCHES):
        try:
            writer.send(pickle.dumps(batch[start : start + MESSAGE_FETCHES]))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                logger.error("The process that records fetches has ended (%s); they are recorded here instead", error)
                _state.writer = None
            return batch[start:]
    return ()


def _write_all(batch: Sequence[Fetch | TokenFetch]) -> None:
    fetches = [fetch for fetch in batch if isinstance(fetch, job_runs.Fetch)]
    if fetches:
        job_runs.record_fetches(fetches=fetches)
    if len(fetches) < len(batch):
        job_runs.verify_workflow_runs(fetches=[fetch for fetch in batch if isinstance(fetch, job_runs.TokenFetch)])


def _write_one(fetch: Fetch | TokenFetch) -> None:
    try:
        _write_all([fetch])
    except REFUSED_FOR_GOOD:
        logger.exception("A fetch of %s/%s is not recorded", fetch.repository, fetch.workflow[:100])


def clear() -> None:
    """Drop the queue without writing it."""
    _state.queue.clear()


def _start_thread() -> None:
    with _state.starting:
        if _state.is_running:
            return
        threading.Thread(target=_write_forever, name="fetch-recorder", daemon=True).start()
        atexit.register(_write_rest)
        # Granian's workers end as multiprocessing processes do: they run finalizers, and no atexit functions.
        Finalize(None, _write_rest, exitpriority=10)
        # Set last, so that the next fetch tries again if the thread could not be started.
        _state.is_running = True


def _write_forever() -> None:
    pause, seconds = threading.Event(), IDLE_SECONDS
    while True:
        pause.wait(seconds)
        try:
            metrics.set_records_waiting(len(_state.queue))
            _speed_up_statements()
            seconds = _pause_after(_write_batch())
            if connection_slots.release(connection):
                # Each batch now takes a connection that a fetch may be waiting for, so write fewer and larger ones.
                seconds = max(seconds, FAILED_SECONDS)
        except Exception:
            # Whatever the error is, the thread must go on: nothing else writes what this process records.
            logger.exception("Fetches could not be recorded; %d are queued", len(_state.queue))
            connection.close()
            seconds = FAILED_SECONDS


def _speed_up_statements() -> None:
    """Change the session of this thread's connection, unless a pooler is in between."""
    database = connection.connection
    if database is None or not getattr(connection, "is_direct", False) or database.prepare_threshold is not None:
        return
    # The statement of a batch takes 2 ms to plan.
    database.prepare_threshold = 0
    # A batch does not wait for the disk. A power cut may lose the records of less than a second, as `kill -9` does.
    database.execute("SET synchronous_commit TO off")


def _pause_after(written: int) -> float:
    if not written:
        return IDLE_SECONDS
    return 0 if len(_state.queue) >= LARGEST_BATCH else _pace().pause_seconds


def _pace() -> Pace:
    if _state.writer is not None:
        return PACE_OF_PASSING_ON
    return vendor.choose(postgresql=PACE_ON_POSTGRESQL, sqlite=PACE_ON_SQLITE)


def _write_batch() -> int:
    batch = max(_pace().batch, len(_state.queue) // PART_OF_QUEUE)
    return write_some(min(batch, LARGEST_BATCH))


def _write_rest() -> None:
    try:
        flush()
    except DatabaseError:
        logger.exception("%d fetches were not recorded", len(_state.queue))
    finally:
        connection.close()
