"""Loads repositories and workflows from a CSV file."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.inventory import actions


class Command(BaseCommand):
    """CSV of owner, repository, workflow; a header line is skipped."""

    help = "Add organizations, repositories and workflows from a CSV file (owner, repository, workflow)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="the CSV file, or - for standard input")

    def handle(self, *args: Any, **options: Any) -> None:
        result = self._import(options["file"])
        for line, reason in result.refused:
            self.stderr.write(f"line {line}: {reason}")
        self.stdout.write(f"{result.taken} lines taken, {len(result.refused)} refused")
        if result.refused:
            raise CommandError("Fix the lines above and run the import again; importing a line twice does no harm.")

    def _import(self, name: str) -> actions.ImportResult:
        try:
            with self._opened(name) as file:
                return actions.import_csv(file=file)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{name} cannot be read: {error}") from error

    def _opened(self, name: str) -> TextIO:
        # Standard input, too, is UTF-8 in every terminal, and may begin with the mark that spreadsheets write.
        source = sys.stdin.fileno() if name == "-" else name
        return open(source, encoding="utf-8-sig", newline="", closefd=name != "-")
