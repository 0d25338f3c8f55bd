"""Adds, changes and deletes integrations; each change leaves an account event in its transaction."""

from __future__ import annotations

import base64
import json
import secrets as random_secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from policystore.accounts import encryption
from policystore.accounts.models import AccountEvent, Actor
from policystore.integrations import queries
from policystore.integrations.models import KINDS, Integration
from policystore.inventory.models import Organization

# An event asks for all integrations of its organization, so that their number is bounded.
MAX_INTEGRATIONS = 50
# A replaced signing secret goes on signing beside the new one for so long.
OVERLAP = timedelta(hours=24)
_CHANGED = ["name", "events", "config", "encrypted_secrets", "failures", "paused_until", "changed_by", "changed_at"]


class IntegrationRefused(ValueError):
    """Another integration has this name, or there are too many."""


class IntegrationGone(IntegrationRefused):
    """The integration was deleted in the meantime."""


def create(
    *,
    organization: Organization,
    kind: str,
    name: str,
    events: Collection[str],
    config: Mapping[str, Any],
    secrets: Mapping[str, Any],
    by: Actor,
) -> Integration:
    """Add an integration, enabled. Raises IntegrationRefused."""
    with transaction.atomic():
        _refuse_taken(organization, name)
        if queries.live(organization).count() >= MAX_INTEGRATIONS:
            raise IntegrationRefused(f"An organization can have at most {MAX_INTEGRATIONS} integrations.")
        integration = Integration.objects.create(
            organization=organization,
            kind=kind,
            name=name,
            events=sorted(events),
            config=dict(config),
            encrypted_secrets=_hidden(secrets),
            created_by=by.name,
            changed_by=by.name,
        )
        record_event(integration, "integration added", by, _described(integration))
    return integration


def update(
    *,
    integration: Integration,
    name: str,
    events: Collection[str],
    config: Mapping[str, Any],
    secrets: Mapping[str, Any],
    by: Actor,
) -> Integration:
    """Change an integration; `secrets` are merged into the stored ones.

    A pause after failures ends, since the change may have fixed what failed. Raises IntegrationRefused and
    IntegrationGone.
    """
    with transaction.atomic():
        _refuse_taken(integration.organization, name, but=integration)
        current = _locked(integration)
        current.name, current.events, current.config = name, sorted(events), dict(config)
        if secrets:
            current.encrypted_secrets = _hidden({**_readable(current), **secrets})
        current.failures, current.paused_until, current.changed_by = 0, None, by.name
        current.save(update_fields=_CHANGED)
        record_event(
            current, "integration changed", by, _described(current) + (", with new secrets" if secrets else "")
        )
    return current


def set_enabled(*, integration: Integration, enabled: bool, by: Actor) -> None:
    """Switch an integration on or off; what waits for it goes out once it is on again. Raises IntegrationGone."""
    with transaction.atomic():
        current = _locked(integration)
        if current.enabled == enabled:
            return
        values = {"failures": 0, "paused_until": None, "disabled_because": "", "changed_by": by.name}
        Integration.objects.filter(pk=current.pk).update(enabled=enabled, changed_at=timezone.now(), **values)
        record_event(current, "integration enabled" if enabled else "integration disabled", by)


def renew_signing_secret(*, integration: Integration, by: Actor) -> str:
    """Make a new signing secret and return it, this once; the old one also signs for another day.

    Raises IntegrationGone.
    """
    with transaction.atomic():
        current = _locked(integration)
        held, fresh = _readable(current), new_signing_secret()
        previous = {"previous": held["signing"], "previous_until": (timezone.now() + OVERLAP).isoformat()}
        renewed = {**held, **(previous if "signing" in held else {}), "signing": fresh}
        values = {"encrypted_secrets": _hidden(renewed), "changed_by": by.name, "changed_at": timezone.now()}
        Integration.objects.filter(pk=current.pk).update(**values)
        record_event(current, "signing secret renewed", by)
    return fresh


def delete(*, integration: Integration, by: Actor) -> None:
    """Delete an integration with its secrets and its delivery log; deleting it twice changes nothing."""
    with transaction.atomic():
        live = Integration.objects.filter(pk=integration.pk, deleted_at__isnull=True)
        if live.update(deleted_at=timezone.now(), enabled=False, config={}, encrypted_secrets=b""):
            integration.messages.all().delete()
            record_event(integration, "integration deleted", by)


def new_signing_secret() -> str:
    """A secret as Standard Webhooks writes it, of 256 random bits."""
    return f"whsec_{base64.b64encode(random_secrets.token_bytes(32)).decode()}"


def _locked(integration: Integration) -> Integration:
    rows = Integration.objects.select_for_update(of=("self",)).select_related("organization")
    current = rows.filter(pk=integration.pk, deleted_at__isnull=True).first()
    if current is None:
        raise IntegrationGone(f"The integration {integration.name} was deleted in the meantime.")
    return current


def _refuse_taken(organization: Organization, name: str, *, but: Integration | None = None) -> None:
    # Two owners who choose one name at the same time take turns.
    organization.lock()
    named = queries.live(organization).filter(name__iexact=name)
    if (named.exclude(pk=but.pk) if but else named).exists():
        raise IntegrationRefused(f"An integration named “{name}” already exists.")


def _hidden(secrets: Mapping[str, Any]) -> bytes:
    return encryption.encrypt(json.dumps(dict(secrets)))


def _readable(integration: Integration) -> dict[str, Any]:
    """The stored secrets; none if they can no longer be decrypted, so that new ones can be set."""
    try:
        return integration.secrets
    except encryption.Undecipherable:
        return {}


def _described(integration: Integration) -> str:
    """Describe the integration for the audit log, without its address: a path can contain a secret."""
    return f"{KINDS[integration.kind].label}, events: {', '.join(integration.events) or 'none'}"[:450]


def record_event(integration: Integration, kind: str, by: Actor, detail: str = "") -> None:
    """Record what happened to an integration in its organization's history."""
    AccountEvent.objects.record(integration.organization, kind, by=by, subject=integration.name, detail=detail)
