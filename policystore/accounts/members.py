"""Adds, changes and removes members of organizations, and keeps them in step with GitHub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from policystore.accounts import account_events, encryption, github_organizations, permissions
from policystore.accounts.actor import SYSTEM, Actor
from policystore.accounts.github import GitHubMembership
from policystore.accounts.models import FormerMember, GitHubCredential, Membership, User
from policystore.accounts.roles import Role
from policystore.inventory.models import Organization

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
MAX_LOGIN = 39
# From the least to the most powerful.
RANKS = list(Role)


class MemberRefused(Exception):
    """The change cannot be made; `str()` is the sentence to show."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A person's memberships after following GitHub's answer, and the organizations that removed them."""

    memberships: int
    removed_from: tuple[str, ...]


def add(*, organization: Organization, username: str, role: str, by: Actor) -> Membership:
    """Give a person a role by their GitHub login, also before they sign in for the first time. Raises MemberRefused."""
    username = username.strip().lstrip("@").lower()
    try:
        UnicodeUsernameValidator()(username)
    except ValidationError as error:
        raise MemberRefused(f"“{username}” is not a GitHub login. Enter one such as “octocat”.") from error
    if len(username) > MAX_LOGIN:
        raise MemberRefused(f"“{username}” is too long: {len(username)} characters (maximum {MAX_LOGIN}).")
    with transaction.atomic():
        user, created = User.objects.get_or_create(username=username)
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        return _admit(user, organization, role, by)


def add_back(*, former: FormerMember, role: str, by: Actor) -> Membership:
    """Add a former member again. Raises MemberRefused."""
    with transaction.atomic():
        return _admit(former.user, former.organization, role, by)


def change_role(*, membership: Membership, role: str, by: Actor) -> None:
    """Change what a member may do. Raises MemberRefused for the last owner, and for an approver that four eyes need."""
    with transaction.atomic():
        current = _locked(membership)
        if current.role == role:
            return
        if role != Role.OWNER:
            _refuse_last_owner(current)
        if role not in permissions.APPROVER_ROLES:
            _refuse_needed_approver(current)
        before = current.get_role_display()
        current.role = Role(role)
        current.save(update_fields=["role"])
        detail = f"{before} → {current.get_role_display()}"
        account_events.record(current.organization, "role changed", by=by, subject=current.user.username, detail=detail)


def remove(*, membership: Membership, by: Actor) -> None:
    """End a membership until an owner adds the person again.

    Raises MemberRefused for the last owner, and for an approver that four eyes need.
    """
    with transaction.atomic():
        current = _locked(membership)
        _refuse_last_owner(current)
        _refuse_needed_approver(current)
        account_events.record(current.organization, "member removed", by=by, subject=current.user.username)
        _end(current, removed_by=by.name)


def follow_github(*, user: User, token: str, found: Sequence[GitHubMembership]) -> Followed:
    """Make the person's memberships what GitHub says, and keep the token.

    A role given in the store stays. A new member is an owner where GitHub says administrator, and an auditor elsewhere;
    one who comes back gets at most the role they had, and one who was removed in the store stays out.
    """
    with transaction.atomic():
        _remember(user, token, at=timezone.now())
        administers = {
            github_organizations.adopt(membership): membership.is_admin
            for membership in github_organizations.admitted(found)
        }
        for gone in Membership.objects.filter(user=user).exclude(organization__in=administers).select_related():
            account_events.record(
                gone.organization, "member left", by=SYSTEM, subject=user.username, detail="by GitHub"
            )
            _end(gone, removed_by="")
        joined = {organization.login: _join(user, organization, admin) for organization, admin in administers.items()}
    return Followed(sum(joined.values()), tuple(sorted(login for login, is_in in joined.items() if not is_in)))


def distrust_token(*, user: User) -> None:
    """Delete a token that GitHub refuses: every session of the person ends at its next request.

    Memberships stay, with their roles, until the person signs in with GitHub again.
    """
    GitHubCredential.objects.filter(user=user).update(encrypted_token=encryption.encrypt(""), checked_at=NEVER)


def _admit(user: User, organization: Organization, role: str, by: Actor) -> Membership:
    membership, fresh = Membership.objects.get_or_create(
        user=user, organization=organization, defaults={"role": Role(role)}
    )
    if not fresh:
        raise MemberRefused(f"“{user.username}” is already a member.")
    FormerMember.objects.filter(user=user, organization=organization).delete()
    account_events.record(
        organization, "member added", by=by, subject=user.username, detail=membership.get_role_display()
    )
    return membership


def _end(membership: Membership, *, removed_by: str) -> None:
    FormerMember.objects.update_or_create(
        user=membership.user,
        organization=membership.organization,
        defaults={"role": membership.role, "removed_by": removed_by, "ended_at": timezone.now()},
    )
    membership.delete()


def _join(user: User, organization: Organization, is_admin: bool) -> bool:
    """Make the person a member unless they were removed; returns whether they are one."""
    # The membership is locked and looked up first: an owner who removes it at the same time either waits, or has
    # already left the former member that is looked up next.
    membership = Membership.objects.select_for_update().filter(user=user, organization=organization).first()
    if membership is not None:
        if not membership.from_github:
            membership.from_github = True
            membership.save(update_fields=["from_github"])
        return True
    former = FormerMember.objects.filter(user=user, organization=organization).first()
    if former is not None and former.removed_by:
        return False
    role = Role.OWNER if is_admin else Role.AUDITOR
    if former is not None:
        role = min(role, Role(former.role), key=RANKS.index)
        former.delete()
    membership = Membership.objects.create(user=user, organization=organization, role=role, from_github=True)
    detail = f"{membership.get_role_display()}, by GitHub"
    account_events.record(organization, "member joined", by=SYSTEM, subject=user.username, detail=detail)
    return True


def _remember(user: User, token: str, *, at: datetime) -> None:
    values = {"encrypted_token": encryption.encrypt(token), "checked_at": at}
    GitHubCredential.objects.update_or_create(user=user, defaults=values)


def _locked(membership: Membership) -> Membership:
    # All memberships of the organization, so that two owners cannot remove each other at the same time. In one order,
    # and without the rows of people and organizations, so that this cannot deadlock.
    rows = Membership.objects.select_for_update(of=("self",)).filter(organization=membership.organization_id)
    by_pk = {row.pk: row for row in rows.select_related("organization", "user").order_by("pk")}
    if membership.pk not in by_pk:
        raise MemberRefused("This person is no longer a member.")
    return by_pk[membership.pk]


def _refuse_last_owner(membership: Membership) -> None:
    others = Membership.objects.filter(organization=membership.organization, role=Role.OWNER).exclude(pk=membership.pk)
    if membership.role == Role.OWNER and not others.exists():
        raise MemberRefused("An organization needs at least one owner. Make another member an owner first.")


def _refuse_needed_approver(membership: Membership) -> None:
    """Refuse to lose an approver while four eyes are on, where fewer would remain than they need."""
    organization = membership.organization
    if membership.role not in permissions.APPROVER_ROLES or not permissions.four_eyes_are_on(organization):
        return
    if permissions.count_approvers(organization, without=membership) < permissions.MIN_APPROVERS:
        raise MemberRefused(
            f"Four eyes are on, and need at least {permissions.MIN_APPROVERS} members who may approve changes. "
            "Add another security admin or owner first, or turn off four eyes."
        )
