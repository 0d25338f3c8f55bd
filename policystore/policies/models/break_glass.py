"""Break glass: a scope that is held to audit for some hours."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q, QuerySet
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policy_language.scopes import Scope


class BreakGlassQuerySet(models.QuerySet["BreakGlass"]):
    """Queries for break glass."""

    def active(self, at: datetime | None = None) -> QuerySet[BreakGlass]:
        """Those active at a time (default: now). Each ends at its `ends_at`, even before the history records it."""
        return self.filter(ended_at__isnull=True, ends_at__gt=at or timezone.now())


class BreakGlass(models.Model):
    """Every job in the scope is served audit in place of block, from `started_at` until `ends_at`.

    `ended_at` is when a person ended it early, or when the store recorded that it had expired; until then it is open,
    and a scope has one open at most.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="break_glasses")
    scope_key = models.CharField(max_length=1100)
    reason = models.CharField(max_length=500)
    started_at = models.DateTimeField()
    started_by = models.CharField(max_length=255)
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.CharField(max_length=255, blank=True)

    objects = BreakGlassQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "break glasses"
        constraints = [
            # Also what the policy fetch looks up: an index over the few rows that are open.
            models.UniqueConstraint(
                fields=["scope_key"], condition=Q(ended_at__isnull=True), name="break_glass_open_once"
            ),
        ]
        indexes = [models.Index(fields=["organization", "-id"], name="break_glass_newest_first")]

    def __str__(self) -> str:
        return f"{self.scope_key} until {self.ends_at}"

    @property
    def scope(self) -> Scope:
        """The scope that `scope_key` names."""
        return Scope.from_key(self.scope_key)

    @property
    def over_at(self) -> datetime:
        """When it ends or ended: early, or at its time."""
        return self.ended_at or self.ends_at

    @property
    def is_active(self) -> bool:
        """True if it is active now."""
        return self.over_at > timezone.now()
