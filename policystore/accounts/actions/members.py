"""Adds, changes and removes members of organizations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from policystore.accounts import approvers, vault
from policystore.accounts.actions import events
from policystore.accounts.actors import SYSTEM, Actor
from policystore.accounts.models import GitHubCredential, Membership, Role, User
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization

NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class MemberRefused(Exception):
    """The change would leave the organization without an owner, or names nobody."""


def add(*, organization: Organization, username: str, role: str, by: Actor) -> Membership:
    """Give a person a role before they sign in for the first time, by GitHub login. Raises MemberRefused."""
    username = username.strip().lstrip("@").lower()
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError as error:
        raise MemberRefused("Write the person's login on GitHub.") from error
    if len(username) > 39:
        raise MemberRefused("A login on GitHub has at most 39 characters.")
    with transaction.atomic():
        user, created = User.objects.get_or_create(username=username)
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        membership, fresh = Membership.objects.get_or_create(
            user=user, organization=organization, defaults={"role": Role(role)}
        )
        if not fresh:
            raise MemberRefused(f"{username} is a member already.")
        events.record(organization, "member added", by=by, subject=username, detail=membership.get_role_display())
    return membership


def change_role(*, membership: Membership, role: str, by: Actor) -> None:
    """Change what a member may do. Raises MemberRefused for the last owner, and for an approver that four eyes need."""
    with transaction.atomic():
        current = _locked(membership)
        if current.role == role:
            return
        if role != Role.OWNER:
            _refuse_last_owner(current)
        if role not in approvers.ROLES:
            _refuse_needed_approver(current)
        before = current.get_role_display()
        current.role = Role(role)
        current.save(update_fields=["role"])
        detail = f"{before} → {current.get_role_display()}"
        events.record(current.organization, "role changed", by=by, subject=current.user.username, detail=detail)


def remove(*, membership: Membership, by: Actor) -> None:
    """End a membership. Raises MemberRefused for the last owner, and for an approver that four eyes need."""
    with transaction.atomic():
        current = _locked(membership)
        _refuse_last_owner(current)
        _refuse_needed_approver(current)
        events.record(current.organization, "member removed", by=by, subject=current.user.username)
        current.delete()


def follow_github(*, user: User, token: str, organizations: Mapping[str, bool], allowed: Collection[str]) -> int:
    """Make the person's memberships what GitHub says, and keep the token; returns how many memberships they have.

    `organizations` maps each login to whether the person administers it. A role given in the store stays; a new
    member is an owner where GitHub says administrator, and an auditor elsewhere.
    """
    wanted = {login.lower(): (login, is_admin) for login, is_admin in organizations.items() if login.lower() in allowed}
    with transaction.atomic():
        _remember(user, token, at=timezone.now())
        for gone in Membership.objects.filter(user=user).exclude(organization__key__in=wanted).select_related():
            events.record(gone.organization, "member left", by=SYSTEM, subject=user.username, detail="by GitHub")
            gone.delete()
        for _, (login, is_admin) in sorted(wanted.items()):
            _join(user, inventory.add_organization(login=login), is_admin)
    return len(wanted)


def distrust_token(*, user: User) -> None:
    """Forget a token that GitHub refuses: every session of the person ends at its next request.

    Memberships stay, with their roles, for when the person signs in by GitHub again.
    """
    GitHubCredential.objects.filter(user=user).update(encrypted_token=vault.encrypt(""), checked_at=NEVER)


def _join(user: User, organization: Organization, is_admin: bool) -> None:
    membership, fresh = Membership.objects.get_or_create(
        user=user,
        organization=organization,
        defaults={"role": Role.OWNER if is_admin else Role.AUDITOR, "from_github": True},
    )
    if fresh:
        detail = f"{membership.get_role_display()}, by GitHub"
        events.record(organization, "member joined", by=SYSTEM, subject=user.username, detail=detail)
    elif not membership.from_github:
        membership.from_github = True
        membership.save(update_fields=["from_github"])


def _remember(user: User, token: str, *, at: datetime) -> None:
    values = {"encrypted_token": vault.encrypt(token), "checked_at": at}
    GitHubCredential.objects.update_or_create(user=user, defaults=values)


def _locked(membership: Membership) -> Membership:
    # All memberships of the organization, so that two owners cannot remove each other at once.
    rows = Membership.objects.select_for_update().filter(organization=membership.organization_id)
    by_pk = {row.pk: row for row in rows.select_related("organization", "user")}
    if membership.pk not in by_pk:
        raise MemberRefused("This person is no member any more.")
    return by_pk[membership.pk]


def _refuse_last_owner(membership: Membership) -> None:
    others = Membership.objects.filter(organization=membership.organization, role=Role.OWNER).exclude(pk=membership.pk)
    if membership.role == Role.OWNER and not others.exists():
        raise MemberRefused("An organization keeps at least one owner; make somebody else an owner first.")


def _refuse_needed_approver(membership: Membership) -> None:
    """Refuse to lose an approver while four eyes are on, where fewer would remain than they need."""
    organization = membership.organization
    if membership.role not in approvers.ROLES or not approvers.are_required(organization):
        return
    if approvers.count(organization, without=membership) < approvers.MINIMUM:
        raise MemberRefused(
            f"Four eyes are on, and need at least {approvers.MINIMUM} members who may approve changes. "
            "Add another security admin or owner first, or turn off four eyes."
        )
