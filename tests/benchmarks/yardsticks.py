"""What the store is measured against: the least that a server must do, on bare gunicorn.

Each is a WSGI application; gunicorn loads the one that its command names. None of them imports Django.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

StartResponse = Callable[..., Any]
BODY = b'{"reply":"' + b"x" * 588 + b'"}'
TABLE = "yardstick"
_SELECT = f"SELECT body FROM {TABLE} WHERE scope_key = "


def _reply(start_response: StartResponse, body: bytes) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def constant(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """(b): always the same 600 bytes."""
    return _reply(start_response, BODY)


class Selecting:
    """(c): one indexed SELECT of 600 bytes by the last parameter of the query, on a connection that is kept."""

    def __init__(self, connect: Callable[[], Callable[[str], bytes]]) -> None:
        self._connect = connect
        self._select: Callable[[str], bytes] | None = None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self._select is None:
            self._select = self._connect()
        return _reply(start_response, self._select(environ["QUERY_STRING"].rpartition("=")[2]))


def _postgresql() -> Callable[[str], bytes]:
    connection = psycopg.connect(os.environ["YARDSTICK_DATABASE"], autocommit=True)

    def select(key: str) -> bytes:
        row = connection.execute(f"{_SELECT}%s", (key,), prepare=True).fetchone()
        return row[0].encode()

    return select


def _sqlite() -> Callable[[str], bytes]:
    connection = sqlite3.connect(os.environ["YARDSTICK_DATABASE"], isolation_level=None)

    def select(key: str) -> bytes:
        return connection.execute(f"{_SELECT}?", (key,)).fetchone()[0].encode()

    return select


postgresql = Selecting(_postgresql)
sqlite = Selecting(_sqlite)
