"""Slack, by an incoming webhook, or by a bot's token and a channel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings

from policystore.integrations import delivery_results, http_client
from policystore.integrations.channels.slack_message import content_of
from policystore.integrations.delivery_results import Outcome, Result
from policystore.integrations.models import Integration, OutboxMessage

# What a bot is told when its token will never work again.
_GONE = frozenset({"account_inactive", "token_revoked", "is_archived"})
_BUSY = frozenset({"ratelimited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"})


def send(integration: Integration, secrets: Mapping[str, object], messages: Sequence[OutboxMessage]) -> Outcome:
    """Write one event into the channel. Raises NotSent."""
    [message] = messages
    content = content_of(message.kind, json.loads(message.payload), integration.organization.login)
    if webhook := secrets.get("webhook_url"):
        return delivery_results.of(_post(str(webhook), content, message))
    channel = {**content, "channel": integration.config["channel"]}
    reply = _post(f"{settings.SLACK_API_URL}/chat.postMessage", channel, message, token=str(secrets["bot_token"]))
    return _as_bot(delivery_results.of(reply), reply.body)


def _post(url: str, content: Mapping[str, Any], message: OutboxMessage, *, token: str = "") -> http_client.Reply:
    headers = {"Content-Type": "application/json; charset=utf-8", "webhook-id": message.webhook_id}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return http_client.send("POST", url, headers=headers, body=json.dumps(content).encode())


def _as_bot(outcome: Outcome, body: bytes) -> Outcome:
    """Slack answers a bot with 200 and says in the body whether it was done."""
    if outcome.result != Result.DELIVERED:
        return outcome
    try:
        answer = json.loads(body)
        done, problem = (
            answer["ok"] is True,
            delivery_results.excerpt(str(answer.get("error", "")).encode("utf-8", "replace")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return replace(outcome, result=Result.FAILED, error="What answered is not Slack.")
    if done:
        return outcome
    result = Result.GONE if problem in _GONE else Result.FAILED if problem in _BUSY else Result.REFUSED
    return replace(outcome, result=result, error=f"Slack refused the message: {problem[:100]}.")
