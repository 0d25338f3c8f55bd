"""Writes a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from policystore.operations.backup import create
from policystore.operations.backup.tables import SECRETS, Unusable
from policystore.operations.command_line import first_line


class Command(BaseCommand):
    """`manage.py backup FILE`; the store may run meanwhile."""

    help = "Write a consistent snapshot of everything that the store keeps into one file."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="the file to write; it must not exist yet")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        try:
            manifest = create.write(path)
        except (Unusable, OSError, DatabaseError) as error:
            raise CommandError(f"No backup was made: {first_line(error)}") from error
        size = path.stat().st_size / 1024
        self.stdout.write(f"{path}: {manifest.rows:,} rows of {len(manifest.tables)} tables, {size:,.0f} KiB.")
        self.stdout.write(
            f"The settings are not in the file: also keep {' and '.join(SECRETS)}, or SECRET_KEY if they are not set."
        )
