"""The kinds of integration, as far as pages and the outbox need them; `channels` knows how to send to each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

WEBHOOK: Final = "webhook"
SLACK: Final = "slack"
S3: Final = "s3"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of integration: how many messages go out together, and how long one waits for others to join it."""

    name: str
    label: str
    icon: str
    tells: str
    batch_size: int = 1
    gather: timedelta = timedelta(0)


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind(WEBHOOK, "Webhook", "webhook", "Calls an address of yours, signed, once for each event."),
        Kind(SLACK, "Slack", "message-square", "Writes each event into a channel."),
        Kind(
            S3,
            "S3",
            "archive",
            "Stores events in a bucket of S3, or of what is compatible with it, as JSON Lines.",
            batch_size=500,
            gather=timedelta(seconds=30),
        ),
    )
}
CHOICES: Final = [(kind.name, kind.label) for kind in KINDS.values()]
