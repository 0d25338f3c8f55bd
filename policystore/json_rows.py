"""Rows that a statement takes as one parameter, a JSON array of arrays, however many they are; on both databases.

The database takes the JSON apart: a batch costs this process one `json.dumps`, and while the statement runs, another
thread may answer runners.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connection


def source(**columns: str) -> str:
    """What goes into a FROM: the columns by name, with their types in PostgreSQL, in the order of each row's values."""
    return _SOURCES[connection.vendor](columns)


def parameter(rows: Sequence[Sequence[Any]]) -> str:
    """The value for the placeholder in `source`; moments become text, as the database reads them."""
    zone = _ZONES[connection.vendor]

    def written(at: datetime) -> str:
        return f"{at.astimezone(UTC).replace(tzinfo=None)}{zone}"

    return json.dumps(rows, default=written, separators=(",", ":"))


def _on_postgresql(columns: dict[str, str]) -> str:
    values = ", ".join(f"(told->>{place})::{kind} AS {name}" for place, (name, kind) in enumerate(columns.items()))
    return f"(SELECT {values} FROM jsonb_array_elements(%s::jsonb) AS told)"  # noqa: S608 names from this code alone


def _on_sqlite(columns: dict[str, str]) -> str:
    values = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns))
    return f"(SELECT {values} FROM json_each(%s))"  # noqa: S608 names from this code alone


_SOURCES = {"postgresql": _on_postgresql, "sqlite": _on_sqlite}
# SQLite keeps moments as texts in UTC, which name no zone.
_ZONES = {"postgresql": "+00", "sqlite": ""}
