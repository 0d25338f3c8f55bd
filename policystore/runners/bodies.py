"""Read small request bodies within a time limit.

A WSGI server hands over a body as it arrives and cannot stop waiting for it. So a thread of its own reads it, and goes
on waiting alone when the client is too slow: for the whole process and for each address only a few of them may.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from typing import Any

from policystore.runners.replies import Reply, refusal

SECONDS = 1.0
MOST_WAITING = 64
MOST_WAITING_PER_ADDRESS = 4

TOO_SLOW = refusal(
    408, "body_too_slow", f"The body did not arrive within {SECONDS:.0f} s.", headers=(("Connection", "close"),)
)
TOO_MANY = refusal(
    429, "too_many_slow_bodies", "Too many unfinished requests; try again.", headers=(("Retry-After", "1"),)
)


class Bodies:
    """Reads bodies of up to `most` bytes for a WSGI application."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._too_large = refusal(413, "body_too_large", f"The body is larger than {most:,} bytes.")
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()

    def read(self, environ: dict[str, Any]) -> bytes | Reply:
        """Return the whole body, or the reply that refuses it: 408, 413 or 429."""
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
            if self._waiting[address] >= MOST_WAITING_PER_ADDRESS or self._waiting.total() >= MOST_WAITING:
                return TOO_MANY
            self._waiting[address] += 1
        result: Future[bytes] = Future()
        reader = threading.Thread(target=self._read, args=(environ, size, address, result), daemon=True)
        try:
            reader.start()
        except RuntimeError:
            self._finish(address)
            return TOO_MANY
        try:
            return result.result(timeout=SECONDS)
        except TimeoutError:
            return TOO_SLOW

    def _read(self, environ: dict[str, Any], size: int, address: str, result: Future[bytes]) -> None:
        try:
            result.set_result(environ["wsgi.input"].read(size))
        except Exception as error:
            result.set_exception(error)
        finally:
            self._finish(address)

    def _finish(self, address: str) -> None:
        with self._lock:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]
