"""Webhooks, signed as Standard Webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from policystore.integrations import http_client
from policystore.integrations.http_client import Outcome
from policystore.integrations.models import Integration, OutboxMessage


def send(integration: Integration, secrets: Mapping[str, object], messages: Sequence[OutboxMessage]) -> Outcome:
    """Call the address with one event. Raises NotSent."""
    [message] = messages
    config = integration.config
    text = message.payload if config["raw"] else message.envelope(integration)
    headers = {
        **_own_headers(secrets),
        "Content-Type": "application/json",
        "User-Agent": "Policy-Store-Webhook/1",
        **_signature(secrets, message.webhook_id, text),
    }
    reply = http_client.send(config["method"], config["address"], headers=headers, body=text.encode())
    return http_client.outcome_of(reply)


def _own_headers(secrets: Mapping[str, object]) -> dict[str, str]:
    headers = secrets.get("headers")
    return dict(headers) if isinstance(headers, Mapping) else {}


def _signature(secrets: Mapping[str, object], webhook_id: str, text: str) -> dict[str, str]:
    """The three headers; while a replaced secret still counts, both sign, so that a receiver can change over."""
    now = datetime.now(UTC)
    keys = [str(secrets["signing"])]
    if str(secrets.get("previous_until", "")) > now.isoformat():
        keys.append(str(secrets["previous"]))
    signatures = [Webhook(key).sign(msg_id=webhook_id, timestamp=now, data=text) for key in keys]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
