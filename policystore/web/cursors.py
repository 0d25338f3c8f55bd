"""Cursors of keyset pages: where the last row of a page stands, as text for an address, from which they come back as
anything that somebody writes there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from policystore.db import row_ids

BROKEN = "This page's address is broken; go back to the first page."
MOST_CHARACTERS = 8000


class InvalidCursor(ValueError):
    """The page address holds a cursor that this store did not make."""


def written(values: Iterable[Any]) -> str:
    """The cursor of these texts, whole numbers and moments."""
    told = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


def read(cursor: str, types: Sequence[type]) -> list[Any]:
    """The values of these types (`str`, `int`, `datetime`) that a cursor holds, as either database takes them.

    Raises InvalidCursor where it is none that `written` made of such values.
    """
    if len(cursor) > MOST_CHARACTERS:
        raise InvalidCursor(BROKEN)
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return [_READERS[kind](value) for kind, value in zip(types, values, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidCursor(BROKEN) from error


def _text(value: Any) -> str:
    value.encode()
    if "\0" in value:
        raise ValueError("The database holds no such text.")
    return str(value)


def _number(value: Any) -> int:
    if not isinstance(value, int) or abs(value) > row_ids.MOST:
        raise ValueError("The database holds no such number.")
    return value


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("A moment without its zone is none.")
    return moment.astimezone(UTC)


_READERS = {str: _text, int: _number, datetime: _moment}
