"""Writes an organization's policies as files for Git."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.inventory.models import Organization
from policystore.policies.as_code import folder
from policystore.policy_language import bundle


class Command(BaseCommand):
    """The opposite of `apply`: the folder is what the store holds."""

    help = "Write an organization's policies, with everything that belongs to them, to a folder of YAML files for Git."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="the folder to write to; files of deleted policies are removed")
        parser.add_argument("--organization", default="", help="its login; required if the store has several")

    def handle(self, *args: Any, **options: Any) -> None:
        held = folder.stored_bundle(organization_named(options["organization"]))
        removed = folder.write_folder(options["folder"], bundle.write(held))
        gone = f"; {len(removed)} files removed" if removed else ""
        counts = f"{len(held.policies)} policies and {len(held.sets)} endpoint sets of {held.organization}"
        self.stdout.write(f"{counts} written to {options['folder']}{gone}")


def organization_named(login: str) -> Organization:
    """Return the organization with this login, or the only one. Raises CommandError."""
    if login:
        organization = Organization.objects.filter(key=login.lower()).first()
        if organization is None:
            raise CommandError(f"This store has no organization named {login}.")
        return organization
    several = list(Organization.objects.order_by("key")[:10])
    if len(several) != 1:
        names = ", ".join(organization.login for organization in several) or "none"
        raise CommandError(f"Choose an organization with --organization. This store has: {names}.")
    return several[0]
