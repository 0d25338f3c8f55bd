"""Checks of what the store needs from the network; each asks once, with a time limit."""

from __future__ import annotations

import requests
from django.conf import settings

from policystore.operations.findings import Finding, good, problem, warning
from policystore.runners import oidc

SECONDS = 5.0


def issuers_answer() -> Finding:
    """Whether the keys of every OIDC issuer can be had; without them, jobs that send a token go on in audit mode."""
    for issuer in settings.OIDC_ISSUERS:
        try:
            keys = oidc.published_keys(issuer)
        except oidc.IssuerAway as error:
            return warning(f"The OIDC issuer {issuer} does not give its keys, which `policy:` needs: {error}")
        if not keys:
            return warning(f"The OIDC issuer {issuer} publishes no key of the kind that `policy:` needs.")
    return good(f"OIDC issuers answer: {', '.join(settings.OIDC_ISSUERS)}.")


def github_answers() -> Finding | None:
    """Whether people can sign in with GitHub, where that is set up."""
    if not settings.GITHUB_CLIENT_ID:
        return None
    try:
        requests.head(settings.GITHUB_URL, timeout=SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return problem(f"{settings.GITHUB_URL} cannot be reached, so nobody can sign in: {type(error).__name__}.")
    return good(f"{settings.GITHUB_URL} answers.")
