"""Who agreed to what a command changes, where an organization wants two people."""

from __future__ import annotations

from django.core.management.base import CommandError

from policystore.accounts.models import User
from policystore.inventory.models import Organization
from policystore.policies import as_code
from policystore.policy_language.bundle import Bundle


def named(written: str, *, bundle: Bundle, by: str) -> str:
    """The user name of the second person, empty where none is named.

    Raises CommandError for the one who applies the bundle, and for who may not change what it changes; BrokenBundle.
    """
    name = written.strip()
    if not name:
        return ""
    if name.casefold() == by.casefold():
        raise CommandError("--approved-by names the one who applies; name a second person.")
    organization = bundle.organization
    of = Organization.objects.filter(key=organization).first()
    members = User.objects.filter(username__iexact=name, memberships__organization=of, is_active=True)
    person = members.first() if of else None
    if person is None:
        raise CommandError(f"--approved-by: {name} is no member of {organization}; name somebody who is.")
    if not person.has_perm("policies.change_policy", of):
        raise CommandError(f"--approved-by: {name} may not change policies of {organization}; name somebody who may.")
    if not person.has_perm("policies.change_neverallowhost", of) and as_code.plan(bundle, of).host_changes:
        raise CommandError(f"--approved-by: only an owner approves other never-allow hosts, and {name} is none.")
    return person.username
