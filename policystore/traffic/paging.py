"""Pages by keyset: a cursor holds where the last row of a page stands, and the next page begins beyond it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.db.models import Q, QuerySet

Row = TypeVar("Row")
MAX_CURSOR = 4000


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """A page's rows; `next_cursor` is empty on the last page, and `is_first` is false behind a cursor."""

    rows: Sequence[Row]
    next_cursor: str
    is_first: bool


@dataclass(frozen=True, slots=True)
class Order:
    """The columns that a list is ordered by, together unique, and the types of their values."""

    columns: tuple[str, ...]
    types: tuple[type, ...]
    descending: bool = False

    def page(self, rows: QuerySet[Any, Any], cursor: str, *, size: int) -> Page[Any]:
        """The rows beyond the cursor; a cursor that the store did not make means the first page."""
        sign = "-" if self.descending else ""
        values = self._values(cursor)
        if values is not None:
            rows = rows.filter(self._beyond(values))
        found = list(rows.order_by(*(f"{sign}{column}" for column in self.columns))[: size + 1])
        shown = found[:size]
        more = self._cursor(shown[-1]) if len(found) > size else ""
        return Page(shown, more, values is None)

    def _beyond(self, values: Sequence[Any]) -> Q:
        side = "lt" if self.descending else "gt"
        beyond = Q()
        for place, column in enumerate(self.columns):
            same = dict(zip(self.columns[:place], values, strict=False))
            beyond |= Q(**same, **{f"{column}__{side}": values[place]})
        # The redundant first condition lets the index start at the cursor.
        return Q(**{f"{self.columns[0]}__{side}e": values[0]}) & beyond

    def _cursor(self, row: Any) -> str:
        values = [row[column] if isinstance(row, dict) else getattr(row, column) for column in self.columns]
        written = json.dumps([value.isoformat() if isinstance(value, datetime) else value for value in values])
        return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")

    def _values(self, cursor: str) -> list[Any] | None:
        if not cursor or len(cursor) > MAX_CURSOR:
            return None
        try:
            values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            return [_read(kind, value) for kind, value in zip(self.types, values, strict=True)]
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None


def _read(kind: type, value: object) -> object:
    if kind is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    elif kind is str and isinstance(value, str):
        value.encode()
        if "\0" not in value:
            return value
    elif kind is int and isinstance(value, int) and abs(value) <= 2**62:
        return value
    raise ValueError
