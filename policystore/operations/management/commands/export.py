"""Writes an organization's policies as files for Git."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from policystore.operations import bundle_files, organizations
from policystore.policies import as_code
from policystore.policy_language import bundle


class Command(BaseCommand):
    """The opposite of `apply`: the folder is what the store holds."""

    help = "Write an organization's policies, with all that belongs to them, to a folder of YAML files, meant for Git."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="where to write; files of policies that are gone are removed")
        organizations.add_option(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        held = as_code.current(organizations.named(options["organization"]))
        removed = bundle_files.write_folder(options["folder"], bundle.write(held))
        gone = f"; {len(removed)} files removed" if removed else ""
        counts = f"{len(held.policies)} policies and {len(held.sets)} endpoint sets of {held.organization}"
        self.stdout.write(f"{counts} written to {options['folder']}{gone}")
