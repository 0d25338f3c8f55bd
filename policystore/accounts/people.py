"""Keeps people identified by GitHub's numeric id while their logins change and pass to others."""

from __future__ import annotations

from django.db import transaction

from policystore.accounts import account_events
from policystore.accounts.actor import SYSTEM, Actor
from policystore.accounts.models import AccountEvent, FormerMember, Membership, User
from policystore.inventory.models import Organization

# GitHub's logins contain no dot, so a name with one never collides with a login.
_FORMER_NAME = "formerly-{login}.{github_id}"
_SECOND_NAME = "{login}.{github_id}"


def placeholder(login: str) -> User | None:
    """The user whom an owner added by this login and who has not signed in with GitHub yet."""
    waiting = User.objects.filter(username=login.lower(), github_id=None, socialaccount=None, is_staff=False)
    return waiting.first()


def identify(*, user: User, github_id: int, login: str, full_name: str) -> None:
    """Note who a saved user is on GitHub, by id and present login; call it at each sign-in.

    Another user of the store who has that login loses it. History keeps the names that were used at the time.
    """
    with transaction.atomic():
        before = user.username
        user.github_id = github_id
        user.first_name, _, user.last_name = (part[:150] for part in full_name.partition(" "))
        user.username = _freed(login.lower(), user)
        user.save(update_fields=["github_id", "username", "first_name", "last_name"])
        _record_rename(user, before)


def _freed(login: str, user: User) -> str:
    """The login, once nobody else has it; a name made of login and id where a local account keeps it."""
    holder = User.objects.select_for_update().filter(username=login).exclude(pk=user.pk).first()
    if holder is None:
        return login
    if holder.github_id is not None:
        holder.username = _FORMER_NAME.format(login=login, github_id=holder.github_id)
        holder.save(update_fields=["username"])
        _record_rename(holder, login)
    elif holder.is_staff:
        # Such as the first administrator, who signs in with one-time links that name the account.
        return _SECOND_NAME.format(login=login, github_id=user.github_id)
    else:
        _merge(holder, user)
    return login


def _merge(holder: User, user: User) -> None:
    """Give a person what an owner gave their login before they had it; an existing membership keeps its role."""
    given = list(Membership.objects.filter(user=holder).select_related("organization", "user"))
    kept = set(Membership.objects.filter(user=user).values_list("organization_id", flat=True))
    for membership in given:
        role = membership.get_role_display()
        if membership.organization_id in kept:
            _record_merge(membership, f"{role}, added by login before this person had it: their own role stays")
            continue
        _record_merge(membership, f"{role}, added by login before this person had it")
        Membership.objects.filter(pk=membership.pk).update(user=user)
        FormerMember.objects.filter(user=user, organization=membership.organization_id).delete()
    former = FormerMember.objects.filter(user=holder)
    former.exclude(organization__memberships__user=user).exclude(organization__former_members__user=user).update(
        user=user
    )
    former.delete()
    holder.delete()


def _record_merge(membership: Membership, detail: str) -> None:
    account_events.record(
        membership.organization, "membership merged", by=SYSTEM, subject=membership.user.username, detail=detail
    )


def _record_rename(user: User, before: str) -> None:
    if user.username == before:
        return
    detail = f"{before} → {user.username}"
    for membership in Membership.objects.filter(user=user).select_related("organization"):
        account_events.record(membership.organization, "login changed", by=SYSTEM, subject=user.username, detail=detail)


def change_rights(*, user: User, is_active: bool, is_staff: bool, is_superuser: bool, by: Actor) -> None:
    """Set the three flags. What staff may see concerns every organization, so each gets an event about that."""
    with transaction.atomic():
        current = User.objects.select_for_update().get(pk=user.pk)
        if current.is_active != is_active:
            kind = "sign-in allowed" if is_active else "sign-in blocked"
            for organization in Organization.objects.filter(memberships__user=current):
                account_events.record(organization, kind, by=by, subject=current.username)
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
