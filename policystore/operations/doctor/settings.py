"""Checks of what was set."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.http.request import split_domain_port, validate_host

from policystore.operations.findings import Finding, good, problem, warning


def django_agrees() -> Finding:
    """What Django's own checks say, as of a deployment in production."""
    found = checks.run_checks(include_deployment_checks=settings.PRODUCTION)
    serious = [message for message in found if message.level >= checks.WARNING]
    mode = "production" if settings.PRODUCTION else "local"
    if not serious:
        return good(f"The settings are in order (mode: {mode}).")
    return problem("; ".join(f"{message.msg} ({message.id})" for message in serious))


def secrets_are_apart() -> Finding | None:
    """In production, whether SECRET_KEY can be changed without voiding keys and secrets."""
    if not settings.PRODUCTION:
        return None
    missing = []
    if settings.API_KEY_SECRET == settings.SECRET_KEY:
        missing.append("API_KEY_SECRET")
    if settings.ENCRYPTION_KEYS[0] == settings.SECRET_KEY:
        missing.append("ENCRYPTION_KEYS")
    if not missing:
        return good("API keys and stored secrets do not depend on SECRET_KEY.")
    names = " and ".join(missing)
    return warning(f"{names} not set, so SECRET_KEY stands in; to change it later, set its present value there first.")


def public_url() -> Finding:
    """Whether links to the store and addresses on its pages lead to it."""
    for name in ("PUBLIC_URL", "RUNNER_URL"):
        address = getattr(settings, name)
        host = split_domain_port(urlsplit(address).netloc)[0]
        if not validate_host(host, settings.ALLOWED_HOSTS):
            return problem(
                f"{name} is {address}, but ALLOWED_HOSTS does not list {host}: the store refuses its own links."
            )
    if settings.PRODUCTION and "PUBLIC_URL" not in os.environ and len(settings.ALLOWED_HOSTS) > 1:
        return warning(
            f"PUBLIC_URL is not set, so links and installation pages say {settings.PUBLIC_URL}, by the first of"
            " ALLOWED_HOSTS."
        )
    return good(f"Links and installation pages lead to {settings.PUBLIC_URL}.")


def https_is_told() -> Finding | None:
    """In production, whether the store learns from its proxy that people come by https."""
    if not settings.PRODUCTION:
        return None
    if settings.TRUST_FORWARDED_HEADERS:
        return good("The proxy's X-Forwarded-Proto is trusted; let nobody but the proxy reach the store.")
    return warning("TRUST_FORWARDED_HEADERS is not set: behind a proxy, every page would redirect to itself.")
