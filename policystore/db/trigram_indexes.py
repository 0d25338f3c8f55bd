"""Trigram indexes on PostgreSQL, for searches for any part of a text.

They need the extension pg_trgm, which every managed PostgreSQL and Debian's packages have, and which the owner of a
database may create. Without it a migration creates no such index, and the same queries read the whole table.
"""

from __future__ import annotations

import logging

from django.db import ProgrammingError
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.transaction import atomic

logger = logging.getLogger(__name__)

_INSTALLED = "SELECT installed_version IS NOT NULL FROM pg_available_extensions WHERE name = 'pg_trgm'"


def create(schema_editor: BaseDatabaseSchemaEditor, indexes: dict[str, tuple[str, str]]) -> None:
    """Create each index, given as name: (table, SQL expression), in a migration, if the database allows it."""
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        row = cursor.execute(_INSTALLED).fetchone()
        if row is None:
            return
        try:
            # In a savepoint: without it, an error would end the migration's transaction.
            with atomic(using=connection.alias):
                if not row[0]:
                    cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
                for name, (table, expression) in indexes.items():
                    cursor.execute(f"CREATE INDEX {name} ON {table} USING gin (({expression}) gin_trgm_ops)")
        except ProgrammingError as error:
            logger.warning("Searches work without a trigram index, but are slower: %s", error)
