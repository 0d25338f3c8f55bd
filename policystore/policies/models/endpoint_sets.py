"""Endpoint sets: named lists that policies include by name."""

from __future__ import annotations

from django.db import models

from policystore.inventory.models import Organization
from policystore.policies.models.policy import Policy


class EndpointSet(models.Model):
    """A named list of endpoints: its text as written, and the clean `host:port` entries read from it.

    `name_key` is the name in lower case, by which policies find it.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="endpoint_sets")
    name = models.CharField(max_length=100)
    name_key = models.CharField(max_length=100)
    description = models.CharField(max_length=500, blank=True)
    text = models.TextField()
    endpoints = models.JSONField(default=list)
    endpoint_count = models.PositiveIntegerField(default=0)
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=255)
    changed_at = models.DateTimeField()
    changed_by = models.CharField(max_length=255)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "name_key"], name="endpoint_set_name_once")]

    def __str__(self) -> str:
        return self.name


class EndpointSetUse(models.Model):
    """A policy that includes an endpoint set; kept with each save of the policy."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="set_uses")
    endpoint_set = models.ForeignKey(EndpointSet, on_delete=models.PROTECT, related_name="uses")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["policy", "endpoint_set"], name="endpoint_set_once_per_policy")]

    def __str__(self) -> str:
        return f"{self.policy_id} includes {self.endpoint_set_id}"
