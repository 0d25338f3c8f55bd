"""Changes what a person may do in the whole store: sign in at all, use the admin, or everything in it."""

from __future__ import annotations

from django.db import transaction

from policystore.accounts.actions import events
from policystore.accounts.actor import Actor
from policystore.accounts.models import AccountEvent, User
from policystore.inventory.models import Organization


def change(*, user: User, is_active: bool, is_staff: bool, is_superuser: bool, by: Actor) -> None:
    """Set the three flags. What staff may see concerns every organization, so each gets an event about that."""
    with transaction.atomic():
        current = User.objects.select_for_update().get(pk=user.pk)
        if current.is_active != is_active:
            kind = "sign-in allowed" if is_active else "sign-in blocked"
            for organization in Organization.objects.filter(memberships__user=current):
                events.record(organization, kind, by=by, subject=current.username)
        changed = [
            f"{label}: {'yes' if after else 'no'}"
            for label, before, after in (
                ("staff", current.is_staff, is_staff),
                ("superuser", current.is_superuser, is_superuser),
            )
            if before != after
        ]
        if changed:
            AccountEvent.objects.record_everywhere("rights changed", by.name, current.username, ", ".join(changed))
        User.objects.filter(pk=current.pk).update(is_active=is_active, is_staff=is_staff, is_superuser=is_superuser)
