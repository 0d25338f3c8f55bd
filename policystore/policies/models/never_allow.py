"""Hosts that an organization never allows, even if a policy lists them."""

from __future__ import annotations

from django.db import models

from policystore.inventory.models import Organization


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
