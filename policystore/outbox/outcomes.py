"""What came of one attempt to deliver, whatever the kind of integration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from policystore.outbox.sending import Reply

GONE_STATUS = 410
# What a receiver says when it is busy or broken as a whole, not unhappy with one message.
BUSY_STATUSES = frozenset({408, 425, 429})
EXCERPT = 1000


class Result(Enum):
    """Delivered; refused for this message alone; failed as a whole, so that others would too; or gone for good."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt, as its log shows it."""

    result: Result
    status: int | None = None
    response: str = ""
    error: str = ""
    retry_after: str | None = None


def of(reply: Reply) -> Outcome:
    """What an answer means by its status."""
    return Outcome(
        result=_result(reply.status),
        status=reply.status,
        response=excerpt(reply.body),
        error=_error(reply),
        retry_after=reply.headers.get("retry-after"),
    )


def excerpt(body: bytes) -> str:
    """The beginning of an answer as text that every database takes."""
    return body[: EXCERPT * 4].decode("utf-8", "replace").replace("\x00", "\ufffd")[:EXCERPT]


def _result(status: int) -> Result:
    if 200 <= status < 300:
        return Result.DELIVERED
    if status == GONE_STATUS:
        return Result.GONE
    return Result.FAILED if status >= 500 or status in BUSY_STATUSES else Result.REFUSED


def _error(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return "The receiver redirects; redirects are not followed. Write the address that it leads to."
    return ""
