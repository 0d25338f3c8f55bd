"""The last good answers of a process, for the time that the database is away.

What is remembered is what the database had stored, not what was answered: time goes on while the database is away, and
exceptions and break glasses end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from sys import getsizeof

from django.utils import timezone

from policystore.runners.http import AWAY
from policystore.runners.resolution import Stored
from policystore.runners.responses import Reply

MARK = (("Policy-Store-Answer", "remembered"),)
# What an answer takes beside its texts, and what is stored beside its own, measured.
ANSWER_BYTES = 300
STORED_BYTES = 400
# What was asked is remembered by its hash; it has no two alike, and takes as much however long the names are.
_HASH_BYTES = 32


class _Shared:
    """What is stored of one policy, once for all the answers that it gives."""

    __slots__ = ("bytes", "stored", "users")

    def __init__(self, stored: Stored) -> None:
        self.stored, self.users = stored, 0
        self.bytes = STORED_BYTES + getsizeof(stored.reply) + getsizeof(stored.excepted)


class Answers:
    """At most `most` answers of at most `most_bytes` in all; the one that was given longest ago goes first.

    `reply_of` makes the reply of the mode and the text that apply at the time.
    """

    def __init__(self, *, most: int, most_bytes: int, reply_of: Callable[[str, str], Reply]) -> None:
        self._most, self._most_bytes, self._reply_of = most, most_bytes, reply_of
        self._answers: OrderedDict[bytes, _Shared] = OrderedDict()
        self._shared: dict[Stored, _Shared] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, asked: tuple[str, ...], stored: Stored) -> None:
        """Remember what a good answer was made of. No text in `asked` has a NUL."""
        key = _hashed(asked)
        with self._lock:
            before = self._answers.get(key)
            if before is None or before.stored != stored:
                self._drop(key)
                self._add(key, stored)
            self._answers.move_to_end(key)
            while len(self._answers) > self._most or self._bytes > self._most_bytes:
                self._drop(next(iter(self._answers)))

    def drop(self, asked: tuple[str, ...]) -> None:
        """Remember this answer no more: whoever asked may not ask now."""
        with self._lock:
            self._drop(_hashed(asked))

    def has(self, asked: tuple[str, ...]) -> bool:
        """Whether `recall` has an answer."""
        return _hashed(asked) in self._answers

    def recall(self, asked: tuple[str, ...]) -> Reply:
        """The last good answer, as it would be at this time and marked as remembered, or 503."""
        found = self._answers.get(_hashed(asked))
        if found is None:
            return AWAY
        reply = self._reply_of(*found.stored.at(timezone.now()))
        return Reply(status=reply.status, body=reply.body, headers=MARK)

    def forget(self) -> None:
        """Drop all."""
        with self._lock:
            self._answers.clear()
            self._shared.clear()
            self._bytes = 0

    def _add(self, key: bytes, stored: Stored) -> None:
        shared = self._shared.get(stored)
        if shared is None:
            shared = self._shared[stored] = _Shared(stored)
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


def _hashed(asked: tuple[str, ...]) -> bytes:
    return blake2b("\0".join(asked).encode(), digest_size=_HASH_BYTES).digest()
