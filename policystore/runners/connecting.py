"""Makes the policy fetch's new connections beside it, so that it waits for one only as long as a runner can.

psycopg tries all addresses of all hosts, one after the other and each for two seconds at least, and nothing bounds how
long their names are looked up. A connection that comes too late for the fetch that wanted it is there for the next one.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

# A server that hangs right after it has let somebody in is waited for without end; another try may come to another one.
STUCK_SECONDS = 120.0


class Connecting(threading.local):
    """The new connection that a thread waits for or, for want of time, does without as yet."""

    _attempt: _Attempt | None = None

    def made(self) -> BaseDatabaseWrapper | None:
        """The connection that was being made when a fetch gave up, if it is there now. It takes Django's place."""
        attempt = self._attempt
        if attempt is None or not attempt.is_over.is_set():
            return None
        with suppress(OperationalError):
            return self._take(attempt)
        return None

    def within(self, seconds: float) -> BaseDatabaseWrapper:
        """A new connection, which takes the place of Django's. Raises OperationalError where there is none by then."""
        attempt = self._attempt
        if attempt is None or time.monotonic() - attempt.began > STUCK_SECONDS:
            attempt = self._attempt = _Attempt()
        if not attempt.is_over.wait(seconds):
            raise OperationalError("A new connection to the database takes too long.")
        return self._take(attempt)

    def _take(self, attempt: _Attempt) -> BaseDatabaseWrapper:
        self._attempt = None
        attempt.database.dec_thread_sharing()
        if attempt.error is not None:
            attempt.database.close()
            raise OperationalError(str(attempt.error)) from attempt.error
        connections["default"].close()
        connections["default"] = attempt.database
        return attempt.database


class _Attempt:
    """One connection, made by a thread of its own; it is for the thread that asked for it."""

    def __init__(self) -> None:
        self.database = connections.create_connection("default")
        # Django lets no other thread than the one that made it use a connection: here they take turns.
        self.database.inc_thread_sharing()
        self.error: BaseException | None = None
        self.is_over = threading.Event()
        self.began = time.monotonic()
        try:
            threading.Thread(target=self._connect, name="fetch-connection", daemon=True).start()
        except RuntimeError:
            # Where no thread is to be had, better late than never.
            self._connect()

    def _connect(self) -> None:
        try:
            self.database.connect()
        except BaseException as error:
            self.error = error
        finally:
            self.is_over.set()
