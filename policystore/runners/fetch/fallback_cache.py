"""The last good answers of a process, for the time that the database is unavailable.

The cache holds what the database had stored, not what was answered: time passes while the database is unavailable, and
exceptions and break glasses end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from sys import getsizeof

from django.utils import timezone

from policystore.runners.fetch.query import StoredPolicy
from policystore.web.json_api import DATABASE_UNAVAILABLE, Reply

FALLBACK_HEADERS = (("Policy-Store-Answer", "remembered"),)
# What an answer takes besides its texts, and a stored policy besides its own; measured.
ANSWER_BYTES = 300
STORED_BYTES = 400
# Requests are cached by their hash, which takes the same space however long the names are, and has no collisions.
_HASH_BYTES = 32


class _SharedPolicy:
    """A stored policy, held once for all answers that it gives."""

    __slots__ = ("bytes", "stored", "users")

    def __init__(self, stored: StoredPolicy) -> None:
        self.stored, self.users = stored, 0
        self.bytes = STORED_BYTES + getsizeof(stored.reply) + getsizeof(stored.open_exceptions)


class FallbackCache:
    """At most `max_answers` answers of at most `max_bytes` in total; the least recently given one is dropped first.

    `reply_of` makes the reply from the mode and the text that apply at the time.
    """

    def __init__(self, *, max_answers: int, max_bytes: int, reply_of: Callable[[str, str], Reply]) -> None:
        self._max_answers, self._max_bytes, self._reply_of = max_answers, max_bytes, reply_of
        self._answers: OrderedDict[bytes, _SharedPolicy] = OrderedDict()
        self._shared: dict[StoredPolicy, _SharedPolicy] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, request: tuple[str, ...], stored: StoredPolicy) -> None:
        """Keep what a good answer was made of. The texts in `request` must not contain NUL."""
        key = _hash(request)
        with self._lock:
            before = self._answers.get(key)
            if before is None or before.stored != stored:
                self._drop(key)
                self._add(key, stored)
            self._answers.move_to_end(key)
            while len(self._answers) > self._max_answers or self._bytes > self._max_bytes:
                self._drop(next(iter(self._answers)))

    def drop(self, request: tuple[str, ...]) -> None:
        """Drop the answer to a request that is no longer allowed."""
        with self._lock:
            self._drop(_hash(request))

    def reply(self, request: tuple[str, ...]) -> Reply:
        """Return the last good answer as it would be now, marked by a header, or 503."""
        shared = self._answers.get(_hash(request))
        if shared is None:
            return DATABASE_UNAVAILABLE
        reply = self._reply_of(*shared.stored.at(timezone.now()))
        return Reply(status=reply.status, body=reply.body, headers=FALLBACK_HEADERS)

    def clear(self) -> None:
        """Drop all answers."""
        with self._lock:
            self._answers.clear()
            self._shared.clear()
            self._bytes = 0

    def _add(self, key: bytes, stored: StoredPolicy) -> None:
        shared = self._shared.get(stored)
        if shared is None:
            shared = self._shared[stored] = _SharedPolicy(stored)
            self._bytes += shared.bytes
        shared.users += 1
        self._answers[key] = shared
        self._bytes += ANSWER_BYTES

    def _drop(self, key: bytes) -> None:
        shared = self._answers.pop(key, None)
        if shared is None:
            return
        self._bytes -= ANSWER_BYTES
        shared.users -= 1
        if not shared.users:
            del self._shared[shared.stored]
            self._bytes -= shared.bytes


def _hash(request: tuple[str, ...]) -> bytes:
    return blake2b("\0".join(request).encode(), digest_size=_HASH_BYTES).digest()
