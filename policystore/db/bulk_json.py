"""Rows that a statement takes as one parameter, a JSON array of arrays, however many they are; on both databases.

The database takes the JSON apart: a batch costs this process one `json.dumps`, and while the statement runs, another
thread may answer runners.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connection


def source(**columns: str) -> str:
    """What goes into a FROM: the columns by name, with their types in PostgreSQL, in the order of each row's values."""
    return _SOURCES[connection.vendor](columns)


def parameter(rows: Sequence[Sequence[Any]]) -> str:
    """The value that `source` takes as its parameter; moments become text, as the database reads them."""
    return _ENCODERS[connection.vendor].encode(rows)


def moments() -> Callable[[datetime], str]:
    """How moments are written for the database."""
    return _WRITTEN[connection.vendor]


def _on_postgresql(columns: dict[str, str]) -> str:
    values = ", ".join(f"(item->>{place})::{kind} AS {name}" for place, (name, kind) in enumerate(columns.items()))
    return f"(SELECT {values} FROM jsonb_array_elements(%s::jsonb) AS item)"  # noqa: S608 names from this code alone


def _on_sqlite(columns: dict[str, str]) -> str:
    values = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns))
    return f"(SELECT {values} FROM json_each(%s))"  # noqa: S608 names from this code alone


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo is UTC else at.astimezone(UTC)


_SOURCES = {"postgresql": _on_postgresql, "sqlite": _on_sqlite}
# SQLite keeps moments as texts in UTC, which name no zone.
_WRITTEN: dict[str, Callable[[datetime], str]] = {
    "postgresql": lambda at: _utc(at).isoformat(" "),
    "sqlite": lambda at: _utc(at).replace(tzinfo=None).isoformat(" "),
}
_ENCODERS = {vendor: json.JSONEncoder(default=written, separators=(",", ":")) for vendor, written in _WRITTEN.items()}
