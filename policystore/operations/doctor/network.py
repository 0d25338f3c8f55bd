"""Checks of what the store needs from the network; each asks once, with a time limit."""

from __future__ import annotations

from urllib.parse import quote

import requests
from django.conf import settings

from policystore.accounts import github
from policystore.inventory.models import Organization
from policystore.operations.findings import Finding, good, problem, warning
from policystore.runners import oidc

SECONDS = 5.0
# GitHub's ids begin at 1.
NOBODY = 0


def issuers_answer() -> Finding:
    """Check that every OIDC issuer returns its keys; without them, jobs that send a token run in audit mode."""
    for issuer in settings.OIDC_ISSUERS:
        try:
            keys = oidc.published_keys(issuer)
        except oidc.IssuerUnavailable as error:
            return warning(f"The OIDC issuer {issuer} does not return its keys, which `policy:` needs: {error}")
        if not keys:
            return warning(f"The OIDC issuer {issuer} publishes no key of the kind that `policy:` needs.")
    return good(f"OIDC issuers answer: {', '.join(settings.OIDC_ISSUERS)}.")


def github_answers() -> Finding | None:
    """Check that people can sign in with GitHub, if that is set up."""
    if not settings.GITHUB_CLIENT_ID:
        return None
    try:
        requests.head(settings.GITHUB_URL, timeout=SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return problem(f"{settings.GITHUB_URL} cannot be reached, so nobody can sign in: {type(error).__name__}.")
    return good(f"{settings.GITHUB_URL} answers.")


def organizations_are_the_same() -> Finding | None:
    """Check that each allowed login still belongs to the organization with the id that the store knows.

    Returns None if no id is known yet, or GitHub does not say which organization has a login.
    """
    if not settings.GITHUB_CLIENT_ID:
        return None
    known = Organization.objects.filter(key__in=settings.GITHUB_ALLOWED_ORGANIZATIONS, github_id__isnull=False)
    asked = [(one, _present_id(one.login)) for one in known.order_by("key")]
    for organization, present in asked:
        if present == NOBODY:
            return warning(
                f"GitHub has no organization named {organization.login}. If it was renamed, its members still get in; "
                "do not leave the old name free for others to register."
            )
        if present not in (None, organization.github_id):
            return problem(
                f"The GitHub organization {organization.login} has the id {present}, but this store belongs to the id "
                f"{organization.github_id}: another account has registered the name, and its members are refused. If "
                f"it is the right one, set GITHUB_ALLOWED_ORGANIZATIONS={organization.login}:{present}."
            )
    if not any(present for _, present in asked):
        return None
    return good("The organizations on GitHub have the ids that this store knows.")


def _present_id(login: str) -> int | None:
    """The id of the organization that has this login on GitHub now, NOBODY, or None where GitHub does not say."""
    address = f"{github.api_url()}/orgs/{quote(login, safe='')}"
    try:
        response = requests.get(address, timeout=SECONDS, allow_redirects=False)
        if response.status_code == 404:
            return NOBODY
        found = response.json().get("id") if response.status_code == 200 else None
    except (requests.RequestException, ValueError, AttributeError, RecursionError):
        return None
    return found if github.is_id(found) else None
