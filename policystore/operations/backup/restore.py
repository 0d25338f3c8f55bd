"""Reads a backup, checks it, and puts it into an empty database."""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from policystore.db import online_migrations
from policystore.operations.backup.tables import (
    CHUNK,
    LEFT_OUT,
    MADE_BY_MIGRATE,
    Digest,
    Manifest,
    Table,
    TableManifest,
    Unusable,
    execute,
    newest,
    tables_of,
)
from policystore.traffic import retention

# Far more than the largest row has: what is packed well would otherwise fill the memory.
MAX_LINE_BYTES = 256 * 1024 * 1024
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
# A member may be packed in a way that this Python cannot read, or be encrypted, which is a RuntimeError.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, KeyError, EOFError, ValueError, RuntimeError)
# Errors of rows whose values do not fit their columns.
_NO_ROWS = (ValueError, TypeError, AttributeError, OverflowError, RecursionError, ValidationError)


def check(path: Path) -> Manifest:
    """Read the whole backup and compare it with its manifest. Raises Unusable, OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("manifest.json") as member:
                manifest = Manifest.from_json(member.read(MAX_MANIFEST_BYTES))
            for table in manifest.tables:
                with archive.open(table.member) as member:
                    _compare(table, _lines(member), "The backup is damaged")
    except _UNREADABLE as error:
        raise Unusable("This is not a backup of a store, or it is incomplete.") from error
    return manifest


def _lines(member: IO[bytes]) -> Iterator[bytes]:
    while line := member.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise Unusable("The backup is damaged: it has a line that is longer than any row.")
        yield line


def restore(path: Path, *, report: Callable[[str], None]) -> Manifest:
    """Put a backup into the store's database, which must be empty: all of it, or nothing if anything is wrong.

    The database then has the migrations that the backup had; `migrate` does the rest. Waits for a `migrate` that is
    running there; `report` gets a sentence before. Raises Unusable, OSError, DatabaseError.
    """
    manifest = check(path)
    with online_migrations.migrating(report):
        _migrate_and_fill(path, manifest)
    # This process had cached the content types of other rows.
    ContentType.objects.clear_cache()
    return manifest


def _migrate_and_fill(path: Path, manifest: Manifest) -> None:
    _refuse_other_schema(manifest)
    _refuse_full(manifest)
    executor = MigrationExecutor(connection)
    executor.migrate(newest(manifest.migrations))
    try:
        with zipfile.ZipFile(path) as archive, transaction.atomic():
            # Again, now that nobody else can write between this and the rows.
            _refuse_full(manifest)
            _fill(archive, manifest)
    except _NO_ROWS as error:
        raise Unusable("It holds rows that no store writes, although they match its manifest.") from error


def _refuse_other_schema(manifest: Manifest) -> None:
    wanted = set(manifest.migrations)
    newer = sorted(wanted - online_migrations.known())
    if newer:
        raise Unusable(f"The backup is of a newer release ({newer[0][0]}.{newer[0][1]}); restore it with that release.")
    ahead = sorted(online_migrations.applied() - wanted)
    if ahead:
        raise Unusable(
            f"The database is ahead of the backup ({ahead[0][0]}.{ahead[0][1]}); use a database without tables."
        )


def _refuse_full(manifest: Manifest) -> None:
    there = set(connection.introspection.table_names())
    for table in manifest.tables:
        if table.name not in there or table.name in MADE_BY_MIGRATE:
            continue
        if execute(f"SELECT 1 FROM {connection.ops.quote_name(table.name)} LIMIT 1"):  # noqa: S608 a quoted name alone
            raise Unusable(
                f"The database is not empty ({table.name} has rows). Restore a backup into an empty database."
            )


def _fill(archive: zipfile.ZipFile, manifest: Manifest) -> None:
    tables = {table.name: table for table in tables_of(manifest.migrations)}
    _refuse_other_columns(manifest, tables)
    for name in (*MADE_BY_MIGRATE, *LEFT_OUT):
        _empty(name)
    # Events of past days would all go to the default partition, from which they can only be deleted in batches.
    retention.create_partitions(
        retention_days=settings.EVENT_RETENTION_DAYS, days_back=settings.EVENT_RETENTION_DAYS + 1
    )
    for entry in manifest.tables:
        table = tables[entry.name]
        with archive.open(entry.member) as member:
            rows = (json.loads(line) for line in _lines(member))
            while chunk := list(islice(rows, CHUNK)):
                table.insert(chunk)
        if entry.last_key is not None:
            table.continue_sequence(entry.last_key)
    for entry in manifest.tables:
        _compare(entry, tables[entry.name].lines(), "The database did not store the backup unchanged")


def _refuse_other_columns(manifest: Manifest, tables: dict[str, Table]) -> None:
    for entry in manifest.tables:
        if entry.name not in tables or tables[entry.name].columns != entry.columns:
            raise Unusable(f"The backup's table {entry.name} is not one that its migrations make.")


def _empty(name: str) -> None:
    if name in connection.introspection.table_names():
        execute(f"DELETE FROM {connection.ops.quote_name(name)}")  # noqa: S608 a quoted name alone


def _compare(table: TableManifest, lines: Iterable[bytes], otherwise: str) -> None:
    digest = Digest()
    for line in lines:
        digest.add(line)
    if (digest.rows, str(digest)) != (table.rows, table.digest):
        raise Unusable(
            f"{otherwise}: {table.name} has {digest.rows} rows, which do not match the {table.rows} in the manifest."
        )
