"""A backup: one file with every row of a store, that either database can write and either can restore.

It is a ZIP archive: for each table `tables/NAME.jsonl` with one row a line, as an array in the order of the
table's columns, and last `manifest.json`, which says how many rows and which digest each table has. Restoring makes the
tables as they were when the backup was made, puts the rows in, compares every one, and only then migrates onwards.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, models
from django.db.migrations.loader import MigrationLoader

from policystore.db import vendor
from policystore.db.online_migrations import Migration

# State of the running store: heartbeats, counts of rate limits, and sessions, which would let the finder of a backup
# sign in.
LEFT_OUT = ("operations_heartbeat", "runners_ratelimituse", "django_session")
# Rows that migrating an empty database makes: content types, permissions, and the groups of the roles.
MADE_BY_MIGRATE = ("auth_group_permissions", "auth_group", "auth_permission", "django_content_type")
CHUNK = 2000
_ENCODERS: dict[type, Callable[[Any], Any]] = {
    datetime: lambda value: value.astimezone(UTC).isoformat(),
    date: date.isoformat,
    bytes: lambda value: base64.b64encode(value).decode(),
    memoryview: lambda value: base64.b64encode(value).decode(),
    UUID: str,
    Decimal: str,
}
FORMAT = 1
# The settings that a restored store needs to be what it was.
SECRETS = ("API_KEY_SECRET", "ENCRYPTION_KEYS")


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its columns, each with the field that knows how the database holds it."""

    name: str
    fields: tuple[models.Field[Any, Any], ...]
    model: type[models.Model]

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return [str(field.column) for field in self.fields]

    def lines(self) -> Iterator[bytes]:
        """Every row as a line of JSON, in the order of the primary key.

        Read in chunks that each begin after the last key: a cursor would hold all rows of a large table in memory.
        """
        names = [field.attname for field in self.fields]
        rows = self.model._base_manager.order_by("pk").values_list("pk", *names)
        chunk = list(rows[:CHUNK])
        while chunk:
            for _, *row in chunk:
                values = [_encoded(value) for value in row]
                yield json.dumps(values, separators=(",", ":"), sort_keys=True).encode() + b"\n"
            chunk = list(rows.filter(pk__gt=chunk[-1][0])[:CHUNK])

    def insert(self, lines: Iterable[Sequence[Any]]) -> None:
        """Insert rows as `lines` wrote them, exactly so: no default, no time of now. Raises DatabaseError."""
        quote = connection.ops.quote_name
        columns, places = ", ".join(map(quote, self.columns)), ", ".join(["%s"] * len(self.fields))
        statement = f"INSERT INTO {quote(self.name)} ({columns}) VALUES ({places})"  # noqa: S608 quoted names alone
        rows = [[_stored(field, value) for field, value in zip(self.fields, row, strict=True)] for row in lines]
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)

    def last_key(self) -> int | None:
        """The last value of the key's sequence, 0 before the first; None if it has no sequence."""
        key = self.model._meta.pk
        if not isinstance(key, models.AutoField):
            return None
        if not vendor.is_postgresql():
            return int(execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = %s", self.name))
        quoted = connection.ops.quote_name(self.name)
        sequence = execute("SELECT pg_get_serial_sequence(%s, %s)", quoted, key.column)
        # The name comes quoted from the database itself.
        return int(execute(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"))  # noqa: S608

    def continue_sequence(self, last_key: int) -> None:
        """Continue the key's sequence from here, or from the newest row's key; does nothing if it has no sequence."""
        key = self.model._meta.pk
        if not isinstance(key, models.AutoField):
            return
        newest_row: Any = self.model._base_manager.order_by("-pk").values_list("pk", flat=True).first()
        value = max(last_key, newest_row or 0)
        if vendor.is_postgresql():
            parameters = connection.ops.quote_name(self.name), key.column, max(value, 1), value > 0
            execute("SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)", *parameters)
        else:
            execute("DELETE FROM sqlite_sequence WHERE name = %s", self.name)
            execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", self.name, value)


class Digest:
    """The digest of a set of rows, whatever their order: databases sort texts in orders of their own."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, line: bytes) -> None:
        """Count a row in."""
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(line).digest(), "big")) % 2**256

    def __str__(self) -> str:
        return f"{self._sum:064x}"


def tables_of(migrations: Iterable[Migration]) -> list[Table]:
    """The tables that these migrations make, but for LEFT_OUT."""
    loader = MigrationLoader(connection, ignore_no_migrations=True)
    state = loader.project_state(newest(migrations)).apps
    found = [model for model in state.get_models(include_auto_created=True) if _is_kept(model)]
    tables = [Table(model._meta.db_table, tuple(model._meta.local_concrete_fields), model) for model in found]
    return sorted(tables, key=lambda table: table.name)


def newest(migrations: Iterable[Migration]) -> list[Migration]:
    """Of each app the migrations that no other one of the same app builds on."""
    chosen = set(migrations)
    graph = MigrationLoader(None, ignore_no_migrations=True).graph
    return sorted(
        key
        for key in chosen
        if not any(child.key in chosen and child.key[0] == key[0] for child in graph.node_map[key].children)
    )


def _is_kept(model: type[models.Model]) -> bool:
    return model._meta.managed and not model._meta.proxy and model._meta.db_table not in LEFT_OUT


def _encoded(value: Any) -> Any:
    encode = _ENCODERS.get(type(value))
    return encode(value) if encode else value


def _stored(field: models.Field[Any, Any], value: Any) -> Any:
    if isinstance(field, models.JSONField):
        if value is None and field.null:
            return None
        return connection.ops.adapt_json_value(value, field.encoder)
    return field.get_db_prep_save(field.to_python(value), connection)


def execute(statement: str, *parameters: str | int | None) -> Any:
    """Run a statement; return the first value of its first row, None if it gives no row."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


class Unusable(Exception):
    """The file is not a backup that this store can restore; `str()` says why."""


@dataclass(frozen=True, slots=True)
class TableManifest:
    """A table in the backup; `last_key` is the last value of its primary key's sequence, None if it has none."""

    name: str
    columns: list[str]
    rows: int
    digest: str
    last_key: int | None

    @property
    def member(self) -> str:
        """The name of its file in the archive."""
        return f"tables/{self.name}.jsonl"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole backup; `fingerprints` show whether a store has the same secrets, without revealing them."""

    format: int
    version: str
    made_at: str
    database: str
    migrations: list[Migration]
    tables: list[TableManifest]
    fingerprints: dict[str, str]

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(table.rows for table in self.tables)

    def to_json(self) -> bytes:
        """Encode the manifest."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Decode a manifest. Raises Unusable."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values["format"] != FORMAT:
                raise Unusable(f"It has the format {values['format']}, which this release cannot read.")
            tables = [TableManifest(**table) for table in values.pop("tables")]
            migrations = [(str(app), str(name)) for app, name in values.pop("migrations")]
            secrets = {name: values["fingerprints"].get(name, "") for name in SECRETS}
            return cls(tables=tables, migrations=migrations, **{**values, "fingerprints": secrets})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Unusable("Its manifest cannot be read.") from error


def fingerprints() -> dict[str, str]:
    """A short fingerprint of each of SECRETS as they are set here."""
    values = {"API_KEY_SECRET": settings.API_KEY_SECRET, "ENCRYPTION_KEYS": settings.ENCRYPTION_KEYS[0]}
    return {
        name: hmac.digest(value.encode(), b"policystore backup", "sha256").hex()[:16] for name, value in values.items()
    }
