"""Read small request bodies within a time limit.

A WSGI server hands over a body as it arrives and cannot stop waiting for it, so another thread reads it. If the client
is too slow it gets its answer in time, but Granian then waits for that other thread, and the whole process stands still
meanwhile: it holds Python's lock. So the request keeps its own thread until the body is complete or the client is gone.
Only a few requests may, in the whole process and for each address; all other threads are left for fetches.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any

from policystore.runners.responses import Reply, refusal

SECONDS = 1.0
# Each may keep a thread of the server's, for as long as a slow client likes.
SLOTS = 16
SLOTS_PER_ADDRESS = 4

TOO_SLOW = refusal(
    408, "body_too_slow", f"The body did not arrive within {SECONDS:.0f} s.", headers=(("Connection", "close"),)
)
TOO_MANY = refusal(
    429, "too_many_slow_bodies", "Too many unfinished requests; try again.", headers=(("Retry-After", "1"),)
)


class Unfinished(Exception):
    """The body did not arrive in time; answer with `reply`, and pass that answer through `keep_thread`."""

    reply = TOO_SLOW

    def __init__(self, reading: Future[bytes]) -> None:
        super().__init__()
        self._reading = reading

    def keep_thread(self, answer: Iterable[bytes]) -> Iterator[bytes]:
        """Send the answer, then wait until nothing reads the body any more."""
        try:
            yield from answer
        finally:
            wait([self._reading])


class Bodies:
    """Reads bodies of up to `most` bytes for a WSGI application."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._too_large = refusal(413, "body_too_large", f"The body is larger than {most:,} bytes.")
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def read(self, environ: dict[str, Any]) -> bytes | Reply:
        """Return the whole body, or the reply that refuses it: 413 or 429. Raises Unfinished after SECONDS."""
        length = environ.get("CONTENT_LENGTH") or ""
        is_chunked = not length and bool(environ.get("HTTP_TRANSFER_ENCODING"))
        if not length.isdecimal() and not is_chunked:
            return b""
        if not is_chunked and int(length) > self._most:
            return self._too_large
        body = self._in_time(environ, self._most + 1 if is_chunked else int(length))
        return self._too_large if isinstance(body, bytes) and len(body) > self._most else body

    def _in_time(self, environ: dict[str, Any], size: int) -> bytes | Reply:
        address = environ.get("REMOTE_ADDR", "")
        with self._lock:
            if self._taken[address] >= SLOTS_PER_ADDRESS or self._taken.total() >= SLOTS:
                return TOO_MANY
            self._taken[address] += 1
        reading: Future[bytes] = Future()
        reader = threading.Thread(target=self._read, args=(environ, size, address, reading), daemon=True)
        try:
            reader.start()
        except RuntimeError:
            self._finish(address)
            return TOO_MANY
        try:
            return reading.result(timeout=SECONDS)
        except TimeoutError:
            raise Unfinished(reading) from None

    def _read(self, environ: dict[str, Any], size: int, address: str, reading: Future[bytes]) -> None:
        try:
            body = environ["wsgi.input"].read(size)
        except Exception as error:
            self._finish(address)
            reading.set_exception(error)
        else:
            self._finish(address)
            reading.set_result(body)

    def _finish(self, address: str) -> None:
        with self._lock:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]
