"""Asks GitHub which organizations a person is an active member of, and decides which of those open one of this store.

What counts as a definite answer, from the documentation of the REST API:

- 200 of the list of memberships names those that the token may see. It leaves out organizations whose SAML single
  sign-on the token has not passed (the `X-GitHub-SSO` header has their ids) and those that restrict OAuth apps. So an
  organization that is missing from the list is asked about on its own: 404 means not a member.
- 401 means that the token is revoked or expired.
- 403 stands for rate limits, SAML, IP allow lists and restrictions of OAuth apps alike; 429 and 5xx for trouble. None
  of them says that a person is not a member.

The administrator allows organizations by login (GITHUB_ALLOWED_ORGANIZATIONS), optionally with their ids. An id that is
not in the settings is learned when the first member signs in. From then on the id decides: a renamed organization keeps
its members, and one that registers the old login afterwards opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from django.conf import settings

from policystore.accounts.models import SYSTEM, AccountEvent, User
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization

TIMEOUT_SECONDS = 5
PAGE_SIZE = 100
MAX_PAGES = 20
# More than this does not fit into the databases' BIGINT.
MAX_ID = 2**63 - 1


# Letters, digits and hyphens, and the underscore before the short code of a managed user.
LOGIN = re.compile(r"[A-Za-z0-9_-]{1,100}")


class TokenRefused(Exception):
    """GitHub does not accept the token: it was revoked or has expired; `str()` is the sentence to show."""


class Undecided(Exception):
    """GitHub did not say whether the person is a member; `str()` is the sentence to show, with what to do."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user of GitHub: the numeric id, which stays, the present login, and the name they gave (may be empty)."""

    github_id: int
    login: str
    name: str


@dataclass(frozen=True, slots=True)
class GitHubMembership:
    """An active membership: the organization's numeric id and login, and whether the person administers it."""

    organization_id: int
    login: str
    is_admin: bool


@dataclass(frozen=True, slots=True)
class Held:
    """An organization that the person is a member of in the store; `github_id` is None until it is known."""

    login: str
    github_id: int | None


def api_url() -> str:
    """The API's base address, on github.com or on an Enterprise Server."""
    if settings.GITHUB_URL == "https://github.com":
        return "https://api.github.com"
    return f"{settings.GITHUB_URL}/api/v3"


def person(token: str) -> Person:
    """The person to whom the token belongs. Raises TokenRefused or Undecided."""
    answer = _json(_get(token, "/user", {}))
    login, name = (answer.get("login"), answer.get("name")) if isinstance(answer, dict) else (None, None)
    if not isinstance(login, str) or not LOGIN.fullmatch(login) or not is_id(answer.get("id")):
        raise Undecided("GitHub did not say who is signing in. Try again later.")
    return Person(answer["id"], login, name.replace("\0", "") if isinstance(name, str) else "")


def memberships(token: str, held: Collection[Held] = ()) -> list[GitHubMembership]:
    """The person's active memberships. Of the `held` ones, those that are missing have definitely ended.

    Raises TokenRefused or Undecided.
    """
    found: list[GitHubMembership] = []
    hidden: set[int] = set()
    for page in range(1, MAX_PAGES + 1):
        query: dict[str, str | int] = {"state": "active", "per_page": PAGE_SIZE, "page": page}
        response = _get(token, "/user/memberships/orgs", query)
        rows = _json(response)
        if not isinstance(rows, list):
            raise Undecided("GitHub's answer is not a list of memberships. Try again later.")
        found += [membership for row in rows if (membership := _membership(row))]
        hidden |= _hidden_by_single_sign_on(response)
        if len(rows) < PAGE_SIZE:
            break
    ids = {membership.organization_id for membership in found}
    logins = {membership.login.lower() for membership in found}
    for organization in held:
        known = organization.github_id in ids if organization.github_id else organization.login.lower() in logins
        if not known:
            found += _membership_alone(token, organization, hidden)
    return found


def _membership_alone(token: str, organization: Held, hidden: Collection[int]) -> list[GitHubMembership]:
    """The membership that the list left out, if there is one after all."""
    if organization.github_id in hidden:
        raise _single_sign_on(organization.login)
    path = f"/user/memberships/orgs/{quote(organization.login, safe='')}"
    response = _get(token, path, {}, answers=(200, 404))
    if response.status_code == 404:
        return []
    membership = _membership(_json(response))
    return [membership] if membership else []


def _get(token: str, path: str, query: dict[str, str | int], *, answers: Collection[int] = (200,)) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
    try:
        response = requests.get(
            f"{api_url()}{path}", params=query, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
        )
    except requests.RequestException as error:
        raise Undecided("GitHub cannot be reached. Try again later.") from error
    if response.status_code == 401:
        raise TokenRefused("GitHub does not accept the sign-in. Sign in again.")
    if response.status_code not in answers:
        raise _undecided(response)
    return response


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except (requests.RequestException, ValueError, RecursionError) as error:
        raise Undecided("GitHub's answer is not valid JSON. Try again later.") from error


def _undecided(response: requests.Response) -> Undecided:
    """Return the error for a status that decides nothing."""
    limited = response.headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in response.headers
    if response.status_code == 429 or (response.status_code == 403 and limited):
        return Undecided("GitHub limits how often it can be asked (rate limit). Try again in a few minutes.")
    if response.status_code != 403:
        return Undecided(f"GitHub answered with status {response.status_code}. Try again later.")
    if "X-GitHub-SSO" in response.headers:
        return _single_sign_on("Your organization")
    return Undecided(
        "GitHub does not let this store see your membership. Check that your organization has approved this store's "
        "OAuth app, then sign in again."
    )


def _single_sign_on(name: str) -> Undecided:
    return Undecided(f"{name} requires single sign-on (SAML). Open it on GitHub, then sign in here again.")


def _hidden_by_single_sign_on(response: requests.Response) -> set[int]:
    """The ids in `X-GitHub-SSO: partial-results; organizations=21955855,20582480`."""
    kind, _, listed = response.headers.get("X-GitHub-SSO", "").partition("; organizations=")
    if kind.strip() != "partial-results":
        return set()
    return {int(word) for word in listed.replace(",", " ").split() if word.isdecimal() and len(word) < 20}


def _membership(row: Any) -> GitHubMembership | None:
    """The membership in an answer; None where it is not active. Raises Undecided for anything else."""
    try:
        organization = row["organization"]
        number, login = organization["id"], organization["login"]
        state, is_admin = row["state"], row.get("role") == "admin"
    except (KeyError, TypeError, AttributeError) as error:
        raise Undecided("GitHub's answer is not a membership. Try again later.") from error
    if not is_id(number) or not isinstance(login, str) or not login:
        raise Undecided("GitHub's answer names an organization without an id. Try again later.")
    return GitHubMembership(number, login, is_admin) if state == "active" else None


def is_id(value: object) -> bool:
    """Return True if the value can be GitHub's id of a user or an organization."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID


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
        AccountEvent.objects.record(organization, "GitHub id set", by=SYSTEM, subject=organization.login, detail=detail)
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
