"""How an event is told: the same JSON to webhooks and in S3."""

from __future__ import annotations

import json

from policystore.integrations.models import Integration, OutboxMessage


def wrap(message: OutboxMessage, integration: Integration) -> str:
    """The event in its envelope, on one line: its id, type, time and organization, and under `data` its payload."""
    head = {
        "id": message.webhook_id,
        "type": message.kind,
        "timestamp": message.created_at.isoformat(),
        "organization": integration.organization.login,
    }
    # The payload is JSON already; it is put in as it is, so that every attempt sends the same.
    return f'{json.dumps(head)[:-1]}, "data": {message.payload}}}'
