"""How each kind of integration is sent to. One more kind is one more module here, and one more line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from policystore.outbox import kinds
from policystore.outbox.channels import s3, slack, webhook
from policystore.outbox.models import Integration, OutboxMessage
from policystore.outbox.outcomes import Outcome


class Sender(Protocol):
    """Sends messages of one integration, as many as its kind sends together, and tells what came of it."""

    def __call__(
        self, integration: Integration, secrets: Mapping[str, object], messages: Sequence[OutboxMessage]
    ) -> Outcome: ...


SENDERS: Mapping[str, Sender] = {kinds.WEBHOOK: webhook.send, kinds.SLACK: slack.send, kinds.S3: s3.send}
