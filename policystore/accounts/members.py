"""Adds, changes and removes members of organizations, and keeps them in step with GitHub.

People are identified by GitHub's numeric id, while their logins change and pass to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from policystore.accounts import access, encryption, github
from policystore.accounts.github import GitHubMembership
from policystore.accounts.models import SYSTEM, AccountEvent, Actor, FormerMember, GitHubCredential, Membership, User
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
        if role not in access.APPROVER_ROLES:
            _refuse_needed_approver(current)
        before = current.get_role_display()
        current.role = Role(role)
        current.save(update_fields=["role"])
        detail = f"{before} → {current.get_role_display()}"
        AccountEvent.objects.record(
            current.organization, "role changed", by=by, subject=current.user.username, detail=detail
        )


def remove(*, membership: Membership, by: Actor) -> None:
    """End a membership until an owner adds the person again.

    Raises MemberRefused for the last owner, and for an approver that four eyes need.
    """
    with transaction.atomic():
        current = _locked(membership)
        _refuse_last_owner(current)
        _refuse_needed_approver(current)
        AccountEvent.objects.record(current.organization, "member removed", by=by, subject=current.user.username)
        _end(current, removed_by=by.name)


def follow_github(*, user: User, token: str, found: Sequence[GitHubMembership]) -> Followed:
    """Make the person's memberships what GitHub says, and keep the token.

    A role given in the store stays. A new member is an owner where GitHub says administrator, and an auditor elsewhere;
    one who comes back gets at most the role they had, and one who was removed in the store stays out.
    """
    with transaction.atomic():
        _remember(user, token, at=timezone.now())
        administers = {github.adopt(membership): membership.is_admin for membership in github.admitted(found)}
        for gone in Membership.objects.filter(user=user).exclude(organization__in=administers).select_related():
            AccountEvent.objects.record(
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
    AccountEvent.objects.record(
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
    AccountEvent.objects.record(organization, "member joined", by=SYSTEM, subject=user.username, detail=detail)
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
    """Refuse to lose an approver if four eyes are on and too few would remain."""
    organization = membership.organization
    if membership.role not in access.APPROVER_ROLES or not access.four_eyes_are_on(organization):
        return
    if access.count_approvers(organization, without=membership) < access.MIN_APPROVERS:
        raise MemberRefused(
            f"Four eyes are on, and need at least {access.MIN_APPROVERS} members who may approve changes. "
            "Add another security admin or owner first, or turn off four eyes."
        )


# GitHub's logins contain no dot, so a name with one never collides with a login.
_FORMER_NAME = "formerly-{login}.{github_id}"
_SECOND_NAME = "{login}.{github_id}"


def placeholder(login: str) -> User | None:
    """The user whom an owner added by this login and who has not signed in with GitHub yet."""
    waiting = User.objects.filter(username=login.lower(), github_id=None, socialaccount=None, is_staff=False)
    return waiting.first()


def identify(*, user: User, github_id: int, login: str, full_name: str) -> None:
    """Record who a saved user is on GitHub, by id and current login; call it at each sign-in.

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
    """The login, once no other user has it; login and id combined if a local account keeps the login."""
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
    AccountEvent.objects.record(
        membership.organization, "membership merged", by=SYSTEM, subject=membership.user.username, detail=detail
    )


def _record_rename(user: User, before: str) -> None:
    if user.username == before:
        return
    detail = f"{before} → {user.username}"
    for membership in Membership.objects.filter(user=user).select_related("organization"):
        AccountEvent.objects.record(
            membership.organization, "login changed", by=SYSTEM, subject=user.username, detail=detail
        )


def change_rights(*, user: User, is_active: bool, is_staff: bool, is_superuser: bool, by: Actor) -> None:
    """Set the three flags. What staff may see concerns every organization, so each gets an event about that."""
    with transaction.atomic():
        current = User.objects.select_for_update().get(pk=user.pk)
        if current.is_active != is_active:
            kind = "sign-in allowed" if is_active else "sign-in blocked"
            for organization in Organization.objects.filter(memberships__user=current):
                AccountEvent.objects.record(organization, kind, by=by, subject=current.username)
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
