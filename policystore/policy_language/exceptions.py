"""Exceptions: endpoints that are allowed until a moment, beside those that a policy lists.

A policy's open exceptions stand beside its compiled reply as one text, `[["2026-01-31T12:00:00+00:00", "host:port"],
…]`, empty where there are none; whoever serves the reply adds those that hold at that moment. So each ends at its own
moment, whether or not anything else runs then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple


class Excepted(NamedTuple):
    """An endpoint, clean `host:port`, and the moment from which on it is allowed no more."""

    until: datetime
    endpoint: str


def written(excepted: Iterable[Excepted]) -> str:
    """The text for some exceptions."""
    pairs = [[one.until.isoformat(), one.endpoint] for one in excepted]
    return json.dumps(pairs, separators=(",", ":")) if pairs else ""


def read(text: str) -> list[Excepted]:
    """Those in a text, in their order; none where the text was not written by `written`, as after an edit of the
    database: without exceptions runners still get the policy."""
    if not text:
        return []
    try:
        found = [Excepted(datetime.fromisoformat(until), str(endpoint)) for until, endpoint in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        return []
    return [one for one in found if one.until.tzinfo is not None]


def holding(text: str, at: datetime) -> list[Excepted]:
    """Those of them that hold at a moment."""
    return [one for one in read(text) if one.until > at]


def served(reply: str, text: str, at: datetime) -> str:
    """What runners get at a moment of a compiled reply beside which this text stands; a text that is not a compiled
    reply as it is."""
    try:
        return allowed_too(reply, holding(text, at), at)
    except (ValueError, TypeError, KeyError, RecursionError):
        return reply


def allowed_too(reply: str, excepted: Iterable[Excepted], at: datetime) -> str:
    """A compiled reply with the endpoints that hold at a moment behind its own, each once."""
    added = [one.endpoint for one in excepted if one.until > at]
    if not added:
        return reply
    values = json.loads(reply)
    values["allowed_endpoints"] = list(dict.fromkeys([*values["allowed_endpoints"], *added]))
    return json.dumps(values, separators=(",", ":"))
