"""Checks of the database itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from policystore.operations import bounded, schema
from policystore.operations.doctor import pooling
from policystore.operations.findings import Finding, first_line, good, problem, warning

SECONDS = 5.0
LEAST_POSTGRESQL = 14
# The first whose FTS5 searches by trigrams.
LEAST_SQLITE = (3, 34)
CLOCKS_DIFFER_SECONDS = 2.0
CLOCKS_ARE_WRONG_SECONDS = 60.0
SHOWN = 3


def it_answers() -> Finding:
    """Whether it answers within SECONDS, and which it is."""
    try:
        return bounded.within(SECONDS, _version)
    except bounded.TooSlow:
        return problem(f"{_where()} did not answer within {SECONDS:.0f} s.")
    except DatabaseError as error:
        return problem(f"{_where()} cannot be used: {first_line(error)}{pooling.advice_on(error)}")


@contextmanager
def patience() -> Iterator[None]:
    """Within this block a check waits for nobody's lock longer than SECONDS. Raises DatabaseError."""
    if connection.vendor != "postgresql":
        # It waits no longer than its connection says.
        yield
        return
    # Local to the transaction: behind PgBouncer a session's setting would reach others.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(int(SECONDS * 1000))])
        yield


def _version() -> Finding:
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        version = str(_one("SELECT sqlite_version()"))
        if tuple(map(int, version.split("."))) < LEAST_SQLITE:
            return problem(f"SQLite {version} is too old; the store needs {'.'.join(map(str, LEAST_SQLITE))} or newer.")
        return good(f"SQLite {version}, {_where()}.")
    version = str(_one("SHOW server_version")).split()[0]
    # A number; the text may be 19beta1.
    if int(_one("SHOW server_version_num")) // 10_000 < LEAST_POSTGRESQL:
        return problem(f"PostgreSQL {version} is too old; the store needs {LEAST_POSTGRESQL} or newer.")
    return good(f"PostgreSQL {version}, {_where()}.")


def _where() -> str:
    database = settings.DATABASES["default"]
    if connection.vendor == "sqlite":
        return str(database["NAME"])
    return f"the database {database['NAME']} on {database.get('HOST') or 'the local server'}"


def it_takes_every_letter() -> Finding | None:
    """Whether PostgreSQL keeps texts as UTF-8; a cluster that was made without a locale does not, unless told to."""
    if connection.vendor != "postgresql":
        return None
    encoding = str(_one("SHOW server_encoding"))
    if encoding == "UTF8":
        return good("The database takes every letter.")
    return problem(
        f"The database's encoding is {encoding}, in which not every letter can be stored or found; make another with "
        "`createdb --encoding UTF8 --template template0`, and move there by backup and restore."
    )


def no_newer_release() -> Finding | None:
    """Whether a newer release has been at work here; this one still runs."""
    unknown = schema.unknown()
    if not unknown:
        return None
    app, name = unknown[0]
    return warning(f"A newer release has changed the database ({app}.{name}); upgrade this installation, too.")


def it_is_whole() -> Finding | None:
    """SQLite's own look at the whole file. PostgreSQL has `pg_amcheck` for that, on its own machine."""
    if connection.vendor != "sqlite":
        return None
    broken = [str(row[0]) for row in _rows("PRAGMA integrity_check") if row[0] != "ok"]
    broken += [f"{table}: row {row} refers to a missing row of {other}" for table, row, other, _ in _orphans()]
    if not broken:
        return good("SQLite finds the database whole.")
    told = "; ".join(broken[:SHOWN])
    return problem(f"The database is damaged: {told}. Stop the store, keep the file, and restore the last backup.")


def _orphans() -> list[tuple[Any, ...]]:
    return _rows("PRAGMA foreign_key_check")


def clocks_agree() -> Finding | None:
    """Whether this machine and PostgreSQL's have the same time; SQLite has no clock of its own."""
    if connection.vendor != "postgresql":
        return None
    apart = abs((datetime.now(UTC) - _one("SELECT clock_timestamp()")).total_seconds())
    if apart < CLOCKS_DIFFER_SECONDS:
        return good("The clocks of this machine and of the database agree.")
    told = f"The clocks of this machine and of the database are {apart:.0f} s apart; let both follow a time server."
    return problem(told) if apart > CLOCKS_ARE_WRONG_SECONDS else warning(told)


def _one(statement: str) -> Any:
    return _rows(statement)[0][0]


def _rows(statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())
