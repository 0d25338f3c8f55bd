"""Reads small request bodies within a time limit.

A WSGI server passes on a body as it arrives and cannot stop waiting for it, so another thread reads it. If the client
is too slow it gets its answer in time, but Granian then waits for that other thread, and the whole process stands still
meanwhile: it holds Python's lock. So the request keeps its own thread until the body is complete or the client is gone.
Only a few requests may do so, both in the whole process and per address; all other threads are left for fetches.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Any

from policystore.web.json_api import Reply, refusal

READ_SECONDS = 1.0
# Each slot may occupy one of the server's threads for as long as a slow client likes.
SLOTS = 16
SLOTS_PER_ADDRESS = 4

TOO_SLOW = refusal(
    408, "body_too_slow", f"The body did not arrive within {READ_SECONDS:.0f} s.", headers=(("Connection", "close"),)
)
TOO_MANY = refusal(
    429, "too_many_slow_bodies", "Too many unfinished requests; try again.", headers=(("Retry-After", "1"),)
)


class UnfinishedBody(Exception):
    """The body did not arrive in time; answer with `reply`, and pass that answer through `hold_thread`."""

    reply = TOO_SLOW

    def __init__(self, reading: Future[bytes]) -> None:
        super().__init__()
        self._reading = reading

    def hold_thread(self, response: Iterable[bytes]) -> Iterator[bytes]:
        """Send the response, then wait until no thread reads the body any more."""
        try:
            yield from response
        finally:
            wait([self._reading])


class BodyReader:
    """Reads bodies of up to `max_bytes` for a WSGI application."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._too_large = refusal(413, "body_too_large", f"The body is larger than {max_bytes:,} bytes.")
        self._slots_in_use: Counter[str] = Counter()
        self._lock = threading.Lock()

    def read(self, environ: dict[str, Any]) -> bytes | Reply:
        """Return the whole body, or the reply that refuses it: 413 or 429. Raises UnfinishedBody after READ_SECONDS."""
        length = environ.get("CONTENT_LENGTH") or ""
        is_chunked = not length and bool(environ.get("HTTP_TRANSFER_ENCODING"))
        if not length.isdecimal() and not is_chunked:
            return b""
        if not is_chunked and int(length) > self._max_bytes:
            return self._too_large
        body = self._read_in_time(environ, self._max_bytes + 1 if is_chunked else int(length))
        return self._too_large if isinstance(body, bytes) and len(body) > self._max_bytes else body

    def _read_in_time(self, environ: dict[str, Any], size: int) -> bytes | Reply:
        address = environ.get("REMOTE_ADDR", "")
        with self._lock:
            if self._slots_in_use[address] >= SLOTS_PER_ADDRESS or self._slots_in_use.total() >= SLOTS:
                return TOO_MANY
            self._slots_in_use[address] += 1
        reading: Future[bytes] = Future()
        reader = threading.Thread(target=self._read, args=(environ, size, address, reading), daemon=True)
        try:
            reader.start()
        except RuntimeError:
            self._release(address)
            return TOO_MANY
        try:
            return reading.result(timeout=READ_SECONDS)
        except TimeoutError:
            raise UnfinishedBody(reading) from None

    def _read(self, environ: dict[str, Any], size: int, address: str, reading: Future[bytes]) -> None:
        try:
            body = environ["wsgi.input"].read(size)
        except Exception as error:
            self._release(address)
            reading.set_exception(error)
        else:
            self._release(address)
            reading.set_result(body)

    def _release(self, address: str) -> None:
        with self._lock:
            self._slots_in_use[address] -= 1
            if not self._slots_in_use[address]:
                del self._slots_in_use[address]
