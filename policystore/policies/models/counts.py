"""Counters of an organization's policies."""

from __future__ import annotations

from django.db import models

from policystore.inventory.models import Organization


class PolicyCount(models.Model):
    """A part of an organization's counters, which are the sums of all its rows.

    Triggers add a row with each policy that comes, goes, or comes to be counted otherwise (see `policies.derived`), so
    that nobody waits for anybody; the worker puts rows together. What is derived is in no backup.
    """

    organization = models.ForeignKey(Organization, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    total = models.BigIntegerField()
    block = models.BigIntegerField()
    audit = models.BigIntegerField()
    unattached = models.BigIntegerField()
    risky = models.BigIntegerField()

    class Meta:
        managed = False
        db_table = "policies_policy_counts"

    def __str__(self) -> str:
        return f"{self.organization_id}: {self.total:+}"
