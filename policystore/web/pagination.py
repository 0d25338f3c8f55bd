"""Keyset pagination: each page starts right after the last row of the page before it.

A page deep in a list is as fast as the first one, which OFFSET cannot offer. Cursors are part of page addresses, where
anybody can write anything, so a cursor that the store did not make means the first page.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from django.db.models import BigIntegerField, BooleanField, CharField, DateTimeField, F, Field, Func, Model, QuerySet
from django.db.models.expressions import Expression, Value
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

Row = TypeVar("Row")
ModelRow = TypeVar("ModelRow", bound=Model)
MAX_CURSOR_CHARACTERS = 8000
# The size of the pages in which a list is exported.
EXPORTED_AT_A_TIME = 1000
# The largest number that both databases compare with a column of numbers.
MAX_ROW_ID = 2**62
MAX_ROW_ID_DIGITS = 19
# A page of a search that no index answers reads at most this many rows.
ROWS_LOOKED_THROUGH = 20_000


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of a list. A cursor is empty if there is no page on its side.

    `is_first` is False behind a cursor. `looked_through` is the number of rows that were read if that limit ended the
    page, else 0: older rows may match.
    """

    rows: Sequence[Row]
    next_cursor: str = ""
    previous_cursor: str = ""
    is_first: bool = True
    looked_through: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """The columns that sort a list, which together are unique, and the type of each: str, int or datetime."""

    columns: tuple[str, ...]
    types: tuple[type, ...]
    descending: bool = False

    def page(self, rows: QuerySet[Any, Any], *, size: int, after: str = "", before: str = "") -> Page[Any]:
        """One page of rows (objects or dicts): the first `size` after a cursor, or the last before one."""
        values = decode_cursor(before or after, self.types)
        backwards = bool(before) and values is not None
        descending = self.descending != backwards
        if values is not None:
            rows = rows.filter(self._beyond(values, descending=descending))
        sign = "-" if descending else ""
        fetched = list(rows.order_by(*(f"{sign}{column}" for column in self.columns))[: size + 1])
        more, shown = len(fetched) > size, fetched[:size]
        has_previous, has_next = values is not None, more
        if backwards:
            shown.reverse()
            has_previous, has_next = more, True
        return Page(
            shown,
            next_cursor=self._encode(shown[-1]) if shown and has_next else "",
            previous_cursor=self._encode(shown[0]) if shown and has_previous else "",
            is_first=values is None,
        )

    def _beyond(self, values: Sequence[Any], *, descending: bool) -> Expression:
        """Compare all columns as one row value.

        Given "less, or equal and less", both databases would read every row that shares its first column with the
        cursor, which can be most of the table.
        """
        columns = _RowValue(*(F(column) for column in self.columns))
        fields = zip(values, self.types, strict=True)
        cursor = _RowValue(*(Value(value, output_field=_FIELDS[kind]) for value, kind in fields))
        return _Comparison(columns, cursor, arg_joiner=" < " if descending else " > ")

    def _encode(self, row: Any) -> str:
        return encode_cursor(row[name] if isinstance(row, dict) else getattr(row, name) for name in self.columns)


def newest_first(
    rows: QuerySet[ModelRow], *, size: int, before: str = "", among: QuerySet[ModelRow] | None = None
) -> Page[ModelRow]:
    """One page of rows by descending id; the cursor `before` is an id in decimal digits.

    Pass `among` if no index finds `rows`: all the rows that the database must read to find them, in the order of an
    index. The page then reads at most ROWS_LOOKED_THROUGH of these, so that it takes as long with ten million rows as
    with a hundred thousand. An index of all these texts would slow down every job that is recorded.
    """
    below = parse_row_id(before)
    limit = None if among is None else beyond_limit(_below(among, below))
    matching = _below(rows, below)
    fetched = list((matching if limit is None else matching.filter(pk__gt=limit))[: size + 1])
    if len(fetched) > size:
        return Page(fetched[:size], str(fetched[size - 1].pk), is_first=below is None)
    if limit is None:
        return Page(fetched, is_first=below is None)
    return Page(fetched, str(limit + 1), is_first=below is None, looked_through=ROWS_LOOKED_THROUGH)


def beyond_limit(rows: QuerySet[Any, Any]) -> int | None:
    """The id of the newest row after the first ROWS_LOOKED_THROUGH, newest first; None if there are no more."""
    return rows.order_by("-pk").values_list("pk", flat=True)[ROWS_LOOKED_THROUGH:].first()


def _below(rows: QuerySet[ModelRow], row_id: int | None) -> QuerySet[ModelRow]:
    return (rows if row_id is None else rows.filter(pk__lt=row_id)).order_by("-pk")


def every_row(read: Callable[[str], Page[Row]]) -> Iterator[Row]:
    """All rows of a list, page by page; `read` returns the page behind a cursor, which is empty for the first one."""
    cursor = ""
    while True:
        page = read(cursor)
        yield from page.rows
        cursor = page.next_cursor
        if not cursor:
            return


def query_string(values: Mapping[str, str]) -> str:
    """Return the link to a page with these parameters, without the empty ones."""
    return "?" + urlencode({name: value for name, value in values.items() if value})


def links(page: Page[Any], values: Mapping[str, str], *, cursor: str = "before") -> dict[str, str]:
    """The links to the first and the next page of a list with these parameters, each empty if it leads nowhere."""
    return {
        "first_query": "" if page.is_first else query_string(values),
        "next_query": query_string({**values, cursor: page.next_cursor}) if page.next_cursor else "",
    }


def tabs(labels: Iterable[tuple[str, str]], values: Mapping[str, str], name: str) -> list[dict[str, object]]:
    """A link for each choice (value, label) of the parameter `name`, which keeps the other parameters."""
    return [
        {"label": label, "query": query_string({**values, name: value}), "active": value == values[name]}
        for value, label in labels
    ]


def render_list(request: HttpRequest, template: str, part: str, context: Mapping[str, Any]) -> HttpResponse:
    """The whole page, or only its `part` if htmx replaces the element with that id."""
    is_part = request.htmx and request.htmx.target == part  # type: ignore[attr-defined]
    return render(request, f"{template}#{part}" if is_part else template, context)


def encode_cursor(values: Iterable[str | int | datetime]) -> str:
    """The cursor for these values, as text for a page address."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, types: Sequence[type]) -> list[Any] | None:
    """The values in a cursor, which have these types and fit both databases; None if the cursor is not valid."""
    if len(cursor) > MAX_CURSOR_CHARACTERS:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return [_DECODERS[kind](value) for kind, value in zip(types, values, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _decode_text(value: Any) -> str:
    value.encode()
    if "\0" in value:
        raise ValueError("PostgreSQL cannot store this text.")
    return str(value)


def _decode_number(value: Any) -> int:
    if not isinstance(value, int) or abs(value) > MAX_ROW_ID:
        raise ValueError("The databases cannot store this number.")
    return value


def _decode_time(value: Any) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("A time needs a time zone.")
    return time.astimezone(UTC)


class _RowValue(Func):
    template = "(%(expressions)s)"
    output_field = BooleanField()

    def get_group_by_cols(self) -> list[Any]:
        """The columns inside: SQLite does not group by a row value."""
        return [column for part in self.get_source_expressions() for column in part.get_group_by_cols()]


class _Comparison(Func):
    template = "%(expressions)s"
    output_field = BooleanField()


_DECODERS: dict[type, Callable[[Any], Any]] = {str: _decode_text, int: _decode_number, datetime: _decode_time}
_FIELDS: dict[type, Field[Any, Any]] = {str: CharField(), int: BigIntegerField(), datetime: DateTimeField()}


def parse_row_id(text: str) -> int | None:
    """Parse an id in decimal digits; a larger one than any row has becomes MAX_ROW_ID. None for any other text."""
    if not (text.isascii() and text.isdecimal()) or len(text) > MAX_ROW_ID_DIGITS:
        return None
    return min(int(text), MAX_ROW_ID)
