"""Manages the part of the global blocklist that applies to every organization of the store."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.accounts.models import Actor
from policystore.runners import blocklist
from policystore.runners.models import BlocklistEntry

OPERATOR = Actor(name="manage.py blocklist", kind="code")


class Command(BaseCommand):
    """For the operator of the store, since no organization may block a destination for another one."""

    help = "List, add or remove destinations that agents block in every organization of this store."

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        commands.add_parser("list", help="list the store-wide entries")
        add = commands.add_parser("add", help="block a destination in every organization")
        add.add_argument("endpoint", help="an IPv4 address, a domain or a wildcard such as *.evil.example")
        add.add_argument("--reason", required=True, help="why, as agents report it")
        remove = commands.add_parser("remove", help="remove a store-wide entry")
        remove.add_argument("endpoint")

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, f"_{options['command']}")(options)

    def _list(self, options: dict[str, Any]) -> None:
        for entry in _store_wide().order_by("kind", "endpoint"):
            self.stdout.write(f"{entry.endpoint}  {entry.reason}")

    def _add(self, options: dict[str, Any]) -> None:
        reason = options["reason"].strip()
        if not 0 < len(reason) <= 200:
            raise CommandError(f"The reason has {len(reason)} characters; enter 1 to 200.")
        try:
            entry = blocklist.add(organization=None, endpoint=options["endpoint"], reason=reason, by=OPERATOR)
        except blocklist.EndpointRefused as refused:
            raise CommandError(str(refused)) from refused
        self.stdout.write(f"{entry.endpoint} is blocked in every organization.")

    def _remove(self, options: dict[str, Any]) -> None:
        entry = _store_wide().filter(endpoint=options["endpoint"].strip().rstrip(".").lower()).first()
        if entry is None:
            raise CommandError(f"“{options['endpoint']}” has no store-wide entry; see manage.py blocklist list.")
        blocklist.remove(entry=entry, by=OPERATOR)
        self.stdout.write(f"{entry.endpoint} is no longer blocked store-wide.")


def _store_wide() -> Any:
    return BlocklistEntry.objects.filter(organization__isnull=True)
