"""Results of delivery attempts, for every kind of integration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from policystore.integrations.http_client import Reply

GONE_STATUS = 410
# What a receiver says when it is busy or broken as a whole, not unhappy with one message.
BUSY_STATUSES = frozenset({408, 425, 429})
EXCERPT = 1000
HIDDEN = "[hidden]"
# What is shorter is no secret, and may stand anywhere.
LEAST_HIDDEN = len(HIDDEN)


class Result(Enum):
    """Delivered; refused for this message alone; failed as a whole, so that others would too; or gone for good."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attempt, as the delivery log shows it."""

    result: Result
    status: int | None = None
    response: str = ""
    error: str = ""
    retry_after: str | None = None


def of(reply: Reply) -> Outcome:
    """Return the result that a reply's status means."""
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


def redact(outcome: Outcome, secrets: Mapping[str, object]) -> Outcome:
    """Redact these secrets: some receivers repeat what they were sent, and more people can see the log."""
    for secret in _hidden(secrets):
        outcome = replace(outcome, response=_redact(outcome.response, secret), error=_redact(outcome.error, secret))
    return outcome


def _hidden(secrets: Mapping[str, object]) -> Iterator[str]:
    """Every text among the secrets, as it was sent and then word by word, as `Bearer TOKEN` may be repeated in part."""
    for value in secrets.values():
        if isinstance(value, Mapping):
            yield from _hidden(value)
        elif isinstance(value, str):
            yield from (text for text in (value, *value.split()) if len(text) >= LEAST_HIDDEN)


def _redact(text: str, secret: str) -> str:
    text = text.replace(secret, HIDDEN)
    # An excerpt may end in the middle of it.
    begun = next((size for size in range(len(secret) - 1, LEAST_HIDDEN - 1, -1) if text.endswith(secret[:size])), 0)
    return text[:-begun] + HIDDEN if begun else text


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
