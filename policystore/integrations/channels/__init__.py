"""Sends to each kind of integration; to add a kind, add a module here and a line below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from policystore.integrations.channels import s3, slack, webhook
from policystore.integrations.delivery_results import Outcome
from policystore.integrations.models import S3, SLACK, WEBHOOK, Integration, OutboxMessage


class Sender(Protocol):
    """Sends messages of one integration, as many as its kind sends together, and returns the result."""

    def __call__(
        self, integration: Integration, secrets: Mapping[str, object], messages: Sequence[OutboxMessage]
    ) -> Outcome: ...


SENDERS: Mapping[str, Sender] = {
    WEBHOOK: webhook.send,
    SLACK: slack.send,
    S3: s3.send,
}
