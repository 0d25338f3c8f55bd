"""Policies that are kept as code, as they were applied last."""

from __future__ import annotations

from django.db import models

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
