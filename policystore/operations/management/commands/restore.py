"""Restores a backup."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from policystore.operations.backup import restore
from policystore.operations.backup.tables import Manifest, Unusable, fingerprints
from policystore.operations.command_line import first_line

_LOST = {
    "API_KEY_SECRET": "no API key works until you restore it.",
    "ENCRYPTION_KEYS": "secrets of integrations cannot be read until you restore it, and people must sign in again.",
}


class Command(BaseCommand):
    """`manage.py restore FILE`, into an empty database and while the store does not run."""

    help = "Put a backup into an empty database, and verify it there."
    # The database may have no tables yet.
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="what `manage.py backup` wrote")
        parser.add_argument("--check", action="store_true", help="only read the file and check that it is complete")

    def handle(self, *args: Any, **options: Any) -> None:
        take = restore.check if options["check"] else partial(restore.restore, report=self.stderr.write)
        try:
            manifest = take(options["file"])
        except (Unusable, OSError, DatabaseError) as error:
            raise CommandError(f"Nothing was restored: {first_line(error)}") from error
        counts = f"{manifest.rows:,} rows of {len(manifest.tables)} tables"
        if options["check"]:
            self.stdout.write(f"The backup of {manifest.made_at} (release {manifest.version}) is complete: {counts}.")
            return
        self.stdout.write(f"Restored {counts}, each compared with the backup of {manifest.made_at}.")
        # Now, in case that the next steps are interrupted.
        self.stdout.flush()
        self._warn_of_other_secrets(manifest)
        self._migrate()
        call_command("verify_history", stdout=self.stdout)

    def _migrate(self) -> None:
        try:
            call_command("migrate", verbosity=0, interactive=False, stderr=self.stderr)
        except (CommandError, DatabaseError) as error:
            raise CommandError(
                f"All rows are restored, but the database is not migrated to this release: {first_line(error)} "
                "Run `manage.py migrate`, and then `manage.py verify_history`; do not restore again."
            ) from error

    def _warn_of_other_secrets(self, manifest: Manifest) -> None:
        here = fingerprints()
        for name in [name for name, value in manifest.fingerprints.items() if here.get(name) != value]:
            self.stderr.write(f"{name} (or SECRET_KEY, if it is not set) differs from the backup's: {_LOST[name]}")
