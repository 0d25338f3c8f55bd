"""Checks of the data in the database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Exists, OuterRef
from django.utils import timezone

from policystore.accounts.encryption import Undecipherable
from policystore.accounts.models import ApiKey, Membership
from policystore.accounts.roles import Role
from policystore.integrations import queries as outbox
from policystore.integrations.models import Integration
from policystore.integrity.comparing import Comparison
from policystore.inventory.models import Organization
from policystore.operations import health
from policystore.operations.findings import Finding, good, problem, warning

UNUSED_AFTER = timedelta(days=30)
SECONDS_TO_COMPARE = 10.0
SHOWN = 5


def nothing_was_given_up() -> Finding:
    """Check that no messages to integrations were given up."""
    given_up = outbox.given_up()
    if not given_up:
        return good("No message to an integration was given up.")
    messages = "1 message to integrations was" if given_up == 1 else f"{given_up:,} messages to integrations were"
    return warning(f"{messages} given up; Settings → Integrations shows why.")


def receivers_keep_up() -> Finding:
    """Check that receivers accept messages as fast as they come."""
    late = health.late_receivers()
    if not late:
        return good("Every receiver accepts its messages in time.")
    lags = [
        f"{lag.integration.name} of {lag.integration.organization.login} ({lag.waiting:,} messages wait, the oldest "
        f"for {lag.oldest.total_seconds() / 60:,.0f} min)"
        for lag in late
    ]
    return warning(f"These receivers are slow or fail: {_some(lags)}. Settings → Integrations shows their answers.")


def secrets_can_be_read() -> Finding:
    """Check that the integrations' secrets can be decrypted."""
    unreadable = []
    for integration in Integration.objects.filter(deleted_at__isnull=True).select_related("organization").iterator():
        try:
            _ = integration.secrets
        except Undecipherable:
            unreadable.append(f"{integration.name} of {integration.organization.login}")
    if not unreadable:
        return good("The secrets of all integrations can be read.")
    unreadable_secrets = f"The secrets of {_some(unreadable)} cannot be read"
    return problem(f"{unreadable_secrets}; restore the former value of ENCRYPTION_KEYS, or enter the secrets again.")


def keys_are_used() -> Finding:
    """Check that there are no old API keys that were never used."""
    old = ApiKey.objects.filter(
        revoked_at__isnull=True, last_used_at__isnull=True, created_at__lt=timezone.now() - UNUSED_AFTER
    )
    keys = [f"{key.hint} of {key.organization.login}" for key in old.select_related("organization").order_by("pk")]
    if not keys:
        return good("Every API key is new or has been used.")
    unused = "1 API key was" if len(keys) == 1 else f"{len(keys)} API keys were"
    return warning(f"{unused} never used; revoke those that nobody needs: {_some(keys)}.")


def every_organization_has_an_owner() -> Finding:
    """Check that each organization has an owner, who can create keys for it."""
    owners = Membership.objects.filter(organization=OuterRef("pk"), role=Role.OWNER, user__is_active=True)
    without = Organization.objects.filter(~Exists(owners)).order_by("key").values_list("login", flat=True)
    if not without:
        return good("Every organization has an owner.")
    return warning(
        f"Nobody can create keys in organizations without an owner: {_some(without)}. An administrator of the "
        "organization on GitHub becomes an owner by signing in."
    )


def database_matches_history() -> Finding:
    """Check that everything that decides which policies runners get is as the history recorded it."""
    ends, sentences = time.monotonic() + SECONDS_TO_COMPARE, list[str]()
    for part in Comparison().slices():
        sentences += [problem.sentence for problem in part.problems]
        if time.monotonic() > ends:
            rest = f" Not everything was compared within {SECONDS_TO_COMPARE:.0f} s; run `manage.py verify_history`."
            break
    else:
        rest = ""
    if not sentences:
        return good(f"Policies, attachments, exceptions and keys match the history.{rest}")
    more = f" And {len(sentences) - SHOWN:,} more." if len(sentences) > SHOWN else ""
    return problem(f"The database was changed outside Policy Store. {' '.join(sentences[:SHOWN])}{more}{rest}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{', '.join(listed[:SHOWN])}{more}"
