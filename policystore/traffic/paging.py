"""Pages by keyset: a cursor holds where the last row of a page stands, and the next page begins beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import Q, QuerySet

from policystore.web import cursors

Row = TypeVar("Row")


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
        return cursors.written(row[name] if isinstance(row, dict) else getattr(row, name) for name in self.columns)

    def _values(self, cursor: str) -> list[Any] | None:
        try:
            return cursors.read(cursor, self.types) if cursor else None
        except cursors.InvalidCursor:
            return None
