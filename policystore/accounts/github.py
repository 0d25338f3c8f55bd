"""What GitHub says about a person: who they are and which organizations they are active members of."""

from __future__ import annotations

from dataclasses import dataclass

import requests
from django.conf import settings

TIMEOUT_SECONDS = 5
PAGE_SIZE = 100
MAX_PAGES = 20


class TokenRefused(Exception):
    """GitHub no longer takes the token: it was revoked or has expired."""


class GitHubAway(Exception):
    """GitHub could not be asked."""


@dataclass(frozen=True, slots=True)
class GitHubMembership:
    """An active membership: the organization's login and whether the person administers it."""

    login: str
    is_admin: bool


def api_url() -> str:
    """The API's base address, on github.com or on an Enterprise Server."""
    if settings.GITHUB_URL == "https://github.com":
        return "https://api.github.com"
    return f"{settings.GITHUB_URL}/api/v3"


def memberships(token: str) -> list[GitHubMembership]:
    """The person's active memberships. Raises TokenRefused or GitHubAway."""
    found: list[GitHubMembership] = []
    for page in range(1, MAX_PAGES + 1):
        rows = _get(token, {"state": "active", "per_page": PAGE_SIZE, "page": page})
        found += [_membership(row) for row in rows]
        if len(rows) < PAGE_SIZE:
            break
    return found


def _get(token: str, query: dict[str, str | int]) -> list[dict]:  # type: ignore[type-arg]
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
    address = f"{api_url()}/user/memberships/orgs"
    try:
        response = requests.get(address, params=query, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        if response.status_code in (401, 403):
            raise TokenRefused("GitHub refuses the sign-in's token.")
        response.raise_for_status()
        rows = response.json()
    except requests.RequestException as error:
        raise GitHubAway("GitHub cannot be reached to check the membership.") from error
    if not isinstance(rows, list):
        raise GitHubAway("GitHub answered something that is no list of memberships.")
    return rows


def _membership(row: dict) -> GitHubMembership:  # type: ignore[type-arg]
    try:
        return GitHubMembership(login=str(row["organization"]["login"]), is_admin=row.get("role") == "admin")
    except (KeyError, TypeError, AttributeError) as error:
        raise GitHubAway("GitHub answered a membership that cannot be read.") from error
