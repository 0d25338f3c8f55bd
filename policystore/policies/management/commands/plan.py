"""Shows what `apply` would change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.inventory.models import Organization
from policystore.policies.as_code import folder
from policystore.policies.as_code import plan as as_code
from policystore.policy_language import bundle


class Command(BaseCommand):
    """With --exit-code, ends with 2 if something would change, for pipelines that check for drift."""

    help = "Show how a folder of policies differs from the store, as a diff."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="a folder that export wrote, as it is in Git now")
        parser.add_argument("--keep-missing", action="store_true", help="plan an apply with --keep-missing")
        parser.add_argument("--exit-code", action="store_true", help="exit with 2 if something would change")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            wanted = bundle.read_files(folder.read_folder(options["folder"]))
            organization = Organization.objects.filter(key=wanted.organization).first()
            found = as_code.plan(wanted, organization, keep_missing=options["keep_missing"])
        except (folder.Unreadable, bundle.BrokenBundle) as refusal:
            raise CommandError(str(refusal)) from refusal
        for line in as_code.lines(found):
            self.stdout.write(line)
        if options["exit_code"] and not found.is_empty:
            raise SystemExit(2)
