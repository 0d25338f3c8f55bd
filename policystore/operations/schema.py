"""Which migrations this release brings, and which of them the database has had."""

from __future__ import annotations

from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

Migration = tuple[str, str]


@cache
def known() -> frozenset[Migration]:
    """The migrations of this release, as (app, name); read from disk once."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def applied() -> frozenset[Migration]:
    """The migrations that the database has had. Raises DatabaseError."""
    return frozenset(MigrationRecorder(connection).applied_migrations())


def pending() -> list[Migration]:
    """What `manage.py migrate` would still do. Raises DatabaseError."""
    return sorted(known() - applied())


def unknown() -> list[Migration]:
    """What a newer release has done to the database; this one runs on all the same. Raises DatabaseError."""
    apps = {app for app, _ in known()}
    return sorted(migration for migration in applied() - known() if migration[0] in apps)
