"""Four eyes: changes that wait for a second person."""

from __future__ import annotations

from django.db import models

from policystore.inventory.models import Organization


class FourEyes(models.Model):
    """An organization with such a row lets changes to what is enforced wait for a second person; with `keys_alone`
    those of management keys, and not those of people."""

    organization = models.OneToOneField(
        Organization, on_delete=models.CASCADE, primary_key=True, related_name="four_eyes"
    )
    since = models.DateTimeField()
    set_by = models.CharField(max_length=255)
    keys_alone = models.BooleanField(default=False, db_default=False)

    class Meta:
        verbose_name_plural = "four eyes"

    def __str__(self) -> str:
        return f"{self.organization}: since {self.since}"


class ChangeRequest(models.Model):
    """A requested change: `verb` is one of `approvals.commands.COMMANDS`, `payload` its fields as JSON.

    `shown` is what it would have served when it was asked for, as `effects` describes it, and from its approval on what
    was approved. `digest` names that; it is empty where the change could not be made then.
    """

    class Status(models.TextChoices):
        OPEN = "open", "Open"
        APPROVED = "approved", "Approved"
        DECLINED = "declined", "Declined"
        WITHDRAWN = "withdrawn", "Withdrawn"

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="change_requests")
    verb = models.CharField(max_length=40)
    subject_type = models.CharField(max_length=20)
    subject_id = models.BigIntegerField()
    subject_name = models.CharField(max_length=255)
    payload = models.JSONField()
    shown = models.JSONField(default=dict)
    digest = models.CharField(max_length=64, blank=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    requested_by = models.CharField(max_length=255)
    requested_by_kind = models.CharField(max_length=20)
    # The id of the user who asked, where it was a person: their name may change, and pass to another person.
    requested_by_user = models.BigIntegerField(null=True, editable=False)
    requested_at = models.DateTimeField()
    decided_by = models.CharField(max_length=255, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    comment = models.CharField(max_length=500, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "status", "-id"], name="change_request_by_status"),
            models.Index(fields=["organization", "subject_id"], name="change_request_of_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.subject_name}: {self.status}"

    @property
    def is_open(self) -> bool:
        """True if it is not decided yet."""
        return self.status == self.Status.OPEN
