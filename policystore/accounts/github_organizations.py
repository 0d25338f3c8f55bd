"""Decides which of a person's memberships on GitHub open an organization of this store, by GitHub's numeric ids.

The administrator allows organizations by login (GITHUB_ALLOWED_ORGANIZATIONS), optionally with their ids. An id that is
not in the settings is learned when the first member signs in. From then on the id decides: a renamed organization keeps
its members, and one that registers the old login afterwards opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings

from policystore.accounts import account_events
from policystore.accounts.actor import SYSTEM
from policystore.accounts.github import GitHubMembership, Held
from policystore.accounts.models import User
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization


@dataclass(frozen=True, slots=True)
class Stranger:
    """An organization on GitHub that has an allowed login, but not the id that belongs to it."""

    login: str
    github_id: int
    expected_id: int


def admitted(found: Iterable[GitHubMembership]) -> list[GitHubMembership]:
    """The memberships that open an organization, in the order of their logins."""
    opening = [membership for membership in found if _opens(membership)]
    return sorted(opening, key=lambda membership: membership.login.lower())


def strangers(found: Iterable[GitHubMembership]) -> list[Stranger]:
    """The memberships of organizations that have taken over an allowed login."""
    return [
        Stranger(membership.login, membership.organization_id, expected)
        for membership in found
        if membership.login.lower() in settings.GITHUB_ALLOWED_ORGANIZATIONS
        and not _opens(membership)
        and (expected := _expected_id(_known(membership), membership.login.lower()))
    ]


def adopt(membership: GitHubMembership) -> Organization:
    """The organization that an admitted membership opens; added if it is new, and its id noted."""
    organization = _known(membership) or inventory.add_organization(login=membership.login)
    if organization.github_id != membership.organization_id:
        before, organization.github_id = organization.github_id, membership.organization_id
        organization.save(update_fields=["github_id"])
        detail = f"{before} → {organization.github_id}" if before else str(organization.github_id)
        account_events.record(organization, "GitHub id set", by=SYSTEM, subject=organization.login, detail=detail)
    return organization


def held_by(user: User) -> list[Held]:
    """The organizations that a person is a member of here, for `github.memberships` to confirm."""
    organizations = Organization.objects.filter(memberships__user=user)
    return [Held(one.login, _expected_id(one, one.key)) for one in organizations]


def allowed() -> list[Held]:
    """Every organization that the settings allow, for `github.memberships` to confirm."""
    known = {one.key: one for one in Organization.objects.filter(key__in=settings.GITHUB_ALLOWED_ORGANIZATIONS)}
    return [Held(key, _expected_id(known.get(key), key)) for key in settings.GITHUB_ALLOWED_ORGANIZATIONS]


def _opens(membership: GitHubMembership) -> bool:
    login = membership.login.lower()
    organization = _known(membership)
    keys = {login, organization.key} if organization else {login}
    if keys.isdisjoint(settings.GITHUB_ALLOWED_ORGANIZATIONS):
        return False
    return _expected_id(organization, login) in (None, membership.organization_id)


def _known(membership: GitHubMembership) -> Organization | None:
    """The store's organization: by GitHub's id, which outlives a rename, else by login."""
    by_id = Organization.objects.filter(github_id=membership.organization_id).first()
    return by_id or Organization.objects.filter(key=membership.login.lower()).first()


def _expected_id(organization: Organization | None, login: str) -> int | None:
    key = organization.key if organization else login
    return settings.GITHUB_ORGANIZATION_IDS.get(key) or (organization.github_id if organization else None)
