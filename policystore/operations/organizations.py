"""Which organization a command is about."""

from __future__ import annotations

from django.core.management.base import CommandError, CommandParser

from policystore.inventory.models import Organization


def add_option(parser: CommandParser) -> None:
    """Add `--organization`, which may be left out where the store has only one."""
    parser.add_argument("--organization", default="", help="its login; needed where the store has several")


def named(login: str) -> Organization:
    """The organization with this login, or the only one. Raises CommandError."""
    if login:
        found = Organization.objects.filter(key=login.lower()).first()
        if found is None:
            raise CommandError(f"This store has no organization named {login}.")
        return found
    several = list(Organization.objects.order_by("key")[:10])
    if len(several) != 1:
        names = ", ".join(organization.login for organization in several) or "none"
        raise CommandError(f"Name one with --organization; the store has {names}.")
    return several[0]
