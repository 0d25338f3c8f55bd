"""Integrations, the messages that wait for them, and the result of each attempt to deliver one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db import models

from policystore.accounts import encryption
from policystore.integrations import event_catalog
from policystore.inventory.models import Organization

WEBHOOK: Final = "webhook"
SLACK: Final = "slack"
S3: Final = "s3"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of integration: how many messages go out together, and how long one waits for others to join it."""

    name: str
    label: str
    icon: str
    description: str
    batch_size: int = 1
    gather: timedelta = timedelta(0)


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind(WEBHOOK, "Webhook", "webhook", "Sends each event to your address as a signed HTTP request."),
        Kind(SLACK, "Slack", "message-square", "Posts each event to a channel."),
        Kind(
            S3,
            "S3",
            "archive",
            "Stores events as JSON Lines in a bucket of S3 or a compatible store.",
            batch_size=500,
            gather=timedelta(seconds=30),
        ),
    )
}
CHOICES: Final = [(kind.name, kind.label) for kind in KINDS.values()]


class Integration(models.Model):
    """Another system that receives an organization's events.

    A deleted one stays for a day without its secrets: an event that is being stored meanwhile may still refer to it.
    `failures` counts attempts that failed since the last good one; until `paused_until` nothing is sent.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="integrations")
    kind = models.CharField(max_length=20, choices=CHOICES)
    name = models.CharField(max_length=100)
    enabled = models.BooleanField(default=True)
    disabled_because = models.CharField(max_length=300, blank=True)
    events = models.JSONField(default=list)
    config = models.JSONField(default=dict)
    encrypted_secrets = models.BinaryField()
    failures = models.PositiveIntegerField(default=0)
    paused_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=255)
    changed_at = models.DateTimeField(auto_now=True)
    changed_by = models.CharField(max_length=255)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name", "pk"]
        indexes = [models.Index(fields=["organization", "enabled"], name="integrations_to_tell")]

    def __str__(self) -> str:
        return self.name

    @property
    def secrets(self) -> dict[str, Any]:
        """The decrypted secrets. Raises encryption.Undecipherable."""
        values: dict[str, Any] = json.loads(encryption.decrypt(self.encrypted_secrets))
        return values

    @property
    def described_kind(self) -> Kind:
        """The properties of this kind of integration."""
        return KINDS[self.kind]

    @property
    def event_labels(self) -> list[str]:
        """The chosen events in words, in the order in which they are offered."""
        return [label for kind, label in event_catalog.EVENTS.items() if kind in self.events]


class OutboxMessage(models.Model):
    """One event for one integration, stored in the event's own transaction.

    `next_at` is when it is due. A worker that claims it sets `lease` and moves `next_at` to the lease's end, so a
    message whose sender was killed becomes due again. Messages of one `batch` are always sent together.
    `payload` is the event's JSON as text: every attempt sends the same, and PostgreSQL's JSON refuses some characters.
    """

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        DELIVERED = "delivered", "Delivered"
        DEAD = "dead", "Given up"

    integration = models.ForeignKey(Integration, on_delete=models.CASCADE, related_name="messages")
    webhook_id = models.CharField(max_length=40, unique=True)
    kind = models.CharField(max_length=40)
    payload = models.TextField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    next_at = models.DateTimeField()
    lease = models.CharField(max_length=32, blank=True)
    batch = models.CharField(max_length=40, blank=True)
    attempt_count = models.PositiveIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["next_at", "id"], condition=models.Q(state="pending"), name="outbox_due"),
            models.Index(
                fields=["integration", "next_at", "id"], condition=models.Q(state="pending"), name="outbox_due_of_one"
            ),
            models.Index(
                fields=["integration"],
                condition=models.Q(state="pending") & ~models.Q(lease=""),
                name="outbox_in_flight",
            ),
            models.Index(fields=["integration", "-id"], name="outbox_of_integration"),
            models.Index(fields=["integration", "state", "-id"], name="outbox_by_state"),
            models.Index(fields=["created_at"], name="outbox_by_age"),
        ]

    def __str__(self) -> str:
        return self.webhook_id

    def envelope(self, integration: Integration) -> str:
        """The event as JSON on one line: its id, type, time and organization, and its payload under `data`.

        Webhooks and S3 get the same text.
        """
        head = {
            "id": self.webhook_id,
            "type": self.kind,
            "timestamp": self.created_at.isoformat(),
            "organization": integration.organization.login,
        }
        # The payload is JSON already. It is inserted unchanged, so that every attempt sends the same bytes.
        return f'{json.dumps(head)[:-1]}, "data": {self.payload}}}'

    @property
    def event_label(self) -> str:
        """The kind of event, in words."""
        return event_catalog.label_of(self.kind)


class DeliveryAttempt(models.Model):
    """The result of sending a message once: the receiver's answer, or why there is none."""

    message = models.ForeignKey(OutboxMessage, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    succeeded = models.BooleanField()
    status = models.PositiveIntegerField(null=True, blank=True)
    response = models.TextField(blank=True)
    error = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.message_id}, attempt {self.number}: {self.status or self.error}"
