"""Exceptions: endpoints that are allowed until a given time, in addition to those that a policy lists.

A policy's open exceptions are stored beside its compiled reply as one text, `[["2026-01-31T12:00:00+00:00",
"host:port"], …]`, which is empty if there are none. The code that serves the reply adds those that are still open. So
each exception ends on time, even if no other process is running then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple


class OpenException(NamedTuple):
    """A clean `host:port` endpoint, and the time at which it stops being allowed."""

    until: datetime
    endpoint: str


def encode(exceptions: Iterable[OpenException]) -> str:
    """Serialize exceptions as the stored text."""
    pairs = [[exception.until.isoformat(), exception.endpoint] for exception in exceptions]
    return json.dumps(pairs, separators=(",", ":")) if pairs else ""


def decode(text: str) -> list[OpenException]:
    """The exceptions of a stored text, in their order.

    Empty if `encode` did not write the text, as after an edit of the database: runners then still get the policy.
    """
    if not text:
        return []
    try:
        exceptions = [OpenException(datetime.fromisoformat(until), str(name)) for until, name in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        return []
    return [exception for exception in exceptions if exception.until.tzinfo is not None]


def open_at(text: str, at: datetime) -> list[OpenException]:
    """The exceptions of a stored text that are open at the time `at`."""
    return [exception for exception in decode(text) if exception.until > at]


def reply_at(reply: str, text: str, at: datetime) -> str:
    """What runners get at the time `at`, given a compiled reply and the stored text of its exceptions.

    A reply that is not valid is returned unchanged.
    """
    try:
        return with_exceptions(reply, open_at(text, at), at)
    except (ValueError, TypeError, KeyError, RecursionError):
        return reply


def with_exceptions(reply: str, exceptions: Iterable[OpenException], at: datetime) -> str:
    """A compiled reply whose own endpoints are followed by those of open exceptions, each once.

    Raises ValueError, TypeError, KeyError or RecursionError if there are open exceptions and the reply is not valid.
    """
    added = [exception.endpoint for exception in exceptions if exception.until > at]
    if not added:
        return reply
    values = json.loads(reply)
    values["allowed_endpoints"] = list(dict.fromkeys([*values["allowed_endpoints"], *added]))
    return json.dumps(values, separators=(",", ":"))
