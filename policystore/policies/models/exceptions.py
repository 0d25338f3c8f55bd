"""Exceptions (endpoints that a policy allows for a limited time) and never-allow hosts."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q, QuerySet
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies.models.policy import Policy


class PolicyExceptionQuerySet(models.QuerySet["PolicyException"]):
    """Queries for exceptions."""

    def active(self, at: datetime | None = None) -> QuerySet[PolicyException]:
        """Those active at a time (default: now). Each ends at its `expires_at`, even before the history records it."""
        return self.filter(ended_at__isnull=True, expires_at__gt=at or timezone.now())


class PolicyException(models.Model):
    """An endpoint, clean `host:port`, that every job of the policy may reach from `added_at` until `expires_at`.

    `ended_at` is when a person ended it early, or its expiry once that was written down; until then it is open.
    """

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="exceptions")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="exceptions")
    endpoint = models.CharField(max_length=300)
    reason = models.CharField(max_length=500)
    owner = models.CharField(max_length=255)
    added_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.CharField(max_length=255, blank=True)

    # Whether the organization never allows it; set by who shows exceptions.
    refused: bool = False

    objects = PolicyExceptionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["policy", "endpoint"], condition=Q(ended_at__isnull=True), name="exception_open_once"
            ),
        ]
        indexes = [
            models.Index(fields=["policy", "-id"], name="exception_newest_first"),
            models.Index(fields=["expires_at"], condition=Q(ended_at__isnull=True), name="exception_due"),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} until {self.expires_at}"

    @property
    def over_at(self) -> datetime:
        """When it ends or ended: early, or at its time."""
        return self.ended_at or self.expires_at

    @property
    def is_active(self) -> bool:
        """True if it is active now."""
        return self.over_at > timezone.now()


class NeverAllowHost(models.Model):
    """A host, or `*.` and a host for all below it, that no policy of the organization allows."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="never_allow_hosts")
    host = models.CharField(max_length=255)
    reason = models.CharField(max_length=200)
    added_at = models.DateTimeField()
    added_by = models.CharField(max_length=255)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "host"], name="never_allow_host_once")]

    def __str__(self) -> str:
        return self.host
