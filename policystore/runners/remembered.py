"""The last good answers of a process, for the time that the database is away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime

from django.utils import timezone

from policystore.runners.http import AWAY
from policystore.runners.replies import Reply

Change = tuple[datetime, Reply]
MARK = (("Policy-Store-Answer", "remembered"),)


class Answers:
    """At most `limit` answers by what was asked; the one that was given longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answers: OrderedDict[tuple[str, ...], tuple[Reply, Sequence[Change]]] = OrderedDict()

    def keep(self, asked: tuple[str, ...], reply: Reply, later: Sequence[Change] = ()) -> None:
        """Remember a good answer, and what replaces it when its time is up, soonest first."""
        self._answers[asked] = (reply, later)
        self._answers.move_to_end(asked)
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)

    def drop(self, asked: tuple[str, ...]) -> None:
        """Remember this answer no more: whoever asked may not ask now."""
        self._answers.pop(asked, None)

    def recall(self, asked: tuple[str, ...]) -> Reply:
        """The last good answer, as it would be at this time and marked as remembered, or 503."""
        found = self._answers.get(asked)
        if found is None:
            return AWAY
        reply, later = found
        if later:
            now = timezone.now()
            reply = next((changed for since, changed in reversed(later) if since <= now), reply)
        return Reply(status=reply.status, body=reply.body, headers=MARK)

    def forget(self) -> None:
        """Drop all."""
        self._answers.clear()
