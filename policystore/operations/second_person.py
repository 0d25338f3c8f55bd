"""Who agreed to what a command changes, where an organization wants two people."""

from __future__ import annotations

from django.core.management.base import CommandError

from policystore.accounts.models import User
from policystore.inventory.models import Organization

PERMISSION = "policies.change_policy"


def named(written: str, *, organization: str, by: str) -> str:
    """The user name of the second person, empty where none is named; `organization` is a key.

    Raises CommandError for the one who makes the change, and for who may not change the organization's policies.
    """
    name = written.strip()
    if not name:
        return ""
    if name.casefold() == by.casefold():
        raise CommandError("--approved-by names the one who applies; name a second person.")
    of = Organization.objects.filter(key=organization).first()
    members = User.objects.filter(username__iexact=name, memberships__organization=of, is_active=True)
    person = members.first() if of else None
    if person is None:
        raise CommandError(f"--approved-by: {name} is no member of {organization}; name somebody who is.")
    if not person.has_perm(PERMISSION, of):
        raise CommandError(f"--approved-by: {name} may not change policies of {organization}; name somebody who may.")
    return person.username
