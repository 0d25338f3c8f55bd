"""Policies that are kept as code, and what the Terraform provider last asked of a policy's attachments."""

from __future__ import annotations

from django.db import models

from policystore.accounts.models import ApiKey
from policystore.policies.models.policy import Policy


class ManagedPolicy(models.Model):
    """Marks a policy as managed as code, with what was applied last: what differs from it now is drift."""

    policy = models.OneToOneField(Policy, on_delete=models.CASCADE, primary_key=True, related_name="managed")
    source = models.CharField(max_length=200)
    applied_at = models.DateTimeField()
    applied_by = models.CharField(max_length=255)
    text = models.TextField()
    description = models.CharField(max_length=500, blank=True)
    scopes = models.JSONField(default=list)

    class Meta:
        verbose_name_plural = "managed policies"

    def __str__(self) -> str:
        return f"{self.policy}: {self.source}"


class RequestedAttachments(models.Model):
    """The attachments of a policy as the management API was last asked for them: `body` is `org` and `clusters` of it.

    The Terraform provider compares, so they are read back in this spelling and order while they are what is attached.
    """

    policy = models.OneToOneField(
        Policy, on_delete=models.CASCADE, primary_key=True, related_name="requested_attachments"
    )
    body = models.JSONField()

    class Meta:
        verbose_name_plural = "requested attachments"

    def __str__(self) -> str:
        return f"{self.policy}: as requested"


class PendingDetach(models.Model):
    """A key's request to detach a policy that waits under four eyes for the attachments that replace it.

    `scopes` are the keys of the scopes that the policy had then. At `due_at` the worker makes it a change of its own.
    """

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="pending_detaches")
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="pending_detaches")
    scopes = models.JSONField()
    due_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["policy", "key"], name="pending_detach_once_per_key")]

    def __str__(self) -> str:
        return f"{self.policy}: to be detached by {self.key} at {self.due_at}"
