"""Passes any number of rows to a statement as one parameter, a JSON array of arrays; on both databases.

The database takes the JSON apart: a batch costs this process one `json.dumps`, and while the statement runs, another
thread may answer runners.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from policystore.db import vendor


def source(**columns: str) -> str:
    """Return what goes into a FROM: the columns by name, in the order of each row's values, with PostgreSQL's types."""
    return _dialect().source(columns)


def parameter(rows: Sequence[Sequence[Any]]) -> str:
    """Return the value that `source` takes as its parameter; datetimes become text, as the database reads them."""
    return _dialect().encoder.encode(rows)


def time_encoder() -> Callable[[datetime], str]:
    """Return the function that encodes datetimes for the database."""
    return _dialect().encode_time


class _Dialect(NamedTuple):
    source: Callable[[dict[str, str]], str]
    encode_time: Callable[[datetime], str]
    encoder: json.JSONEncoder


def _postgresql_source(columns: dict[str, str]) -> str:
    values = ", ".join(f"(item->>{place})::{kind} AS {name}" for place, (name, kind) in enumerate(columns.items()))
    return f"(SELECT {values} FROM jsonb_array_elements(%s::jsonb) AS item)"  # noqa: S608 names from this code alone


def _sqlite_source(columns: dict[str, str]) -> str:
    values = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns))
    return f"(SELECT {values} FROM json_each(%s))"  # noqa: S608 names from this code alone


def _postgresql_time(at: datetime) -> str:
    return _in_utc(at).isoformat(" ")


def _sqlite_time(at: datetime) -> str:
    # SQLite keeps datetimes as text in UTC, without a time zone.
    return _in_utc(at).replace(tzinfo=None).isoformat(" ")


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def _encoder(encode_time: Callable[[datetime], str]) -> json.JSONEncoder:
    return json.JSONEncoder(default=encode_time, separators=(",", ":"))


_POSTGRESQL = _Dialect(_postgresql_source, _postgresql_time, _encoder(_postgresql_time))
_SQLITE = _Dialect(_sqlite_source, _sqlite_time, _encoder(_sqlite_time))


def _dialect() -> _Dialect:
    return vendor.choose(postgresql=_POSTGRESQL, sqlite=_SQLITE)
