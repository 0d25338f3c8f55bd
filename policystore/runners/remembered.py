"""The last good answers of a process, for the time that the database is away."""

from __future__ import annotations

from collections import OrderedDict

from policystore.runners.http import AWAY
from policystore.runners.replies import Reply

MARK = (("Policy-Store-Answer", "remembered"),)


class Answers:
    """At most `limit` answers by what was asked; the one that was given longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._answers: OrderedDict[tuple[str, ...], Reply] = OrderedDict()

    def keep(self, asked: tuple[str, ...], reply: Reply) -> None:
        """Remember a good answer."""
        self._answers[asked] = reply
        self._answers.move_to_end(asked)
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)

    def recall(self, asked: tuple[str, ...]) -> Reply:
        """The last good answer, marked as remembered, or 503."""
        reply = self._answers.get(asked)
        if reply is None:
            return AWAY
        return Reply(status=reply.status, body=reply.body, headers=MARK)

    def forget(self) -> None:
        """Drop all."""
        self._answers.clear()
