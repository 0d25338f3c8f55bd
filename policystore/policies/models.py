"""Policies, the scopes they are attached to, and the history of both."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models

from policystore.documents.scopes import Scope, ScopeType
from policystore.inventory.models import Organization


class Policy(models.Model):
    """A policy of one organization: its text as written, and the reply compiled from it for runners.

    What the list shows and sorts by (mode, endpoint count, attachments, last change) is kept beside the text, so that
    a page of the list is one indexed read at any number of policies.
    """

    class Mode(models.TextChoices):
        AUDIT = "audit", "Audit"
        BLOCK = "block", "Block"

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="policies")
    name = models.CharField(max_length=100)
    name_key = models.CharField(max_length=100)
    description = models.CharField(max_length=500, blank=True)
    text = models.TextField()
    version = models.PositiveIntegerField(default=1)
    reply = models.TextField()
    egress_policy = models.CharField(max_length=5, choices=Mode.choices)
    endpoint_count = models.PositiveIntegerField()
    attachment_count = models.PositiveIntegerField(default=0)
    search_text = models.TextField()
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=255)
    changed_at = models.DateTimeField()
    changed_by = models.CharField(max_length=255)

    class Meta:
        verbose_name_plural = "policies"
        constraints = [models.UniqueConstraint(fields=["organization", "name_key"], name="policy_name_once")]
        indexes = [
            models.Index(fields=["organization", "-changed_at", "-id"], name="policy_by_change"),
            models.Index(fields=["organization", "egress_policy", "attachment_count"], name="policy_counters"),
            models.Index(fields=["organization", "-endpoint_count", "-id"], name="policy_by_endpoints"),
            models.Index(fields=["organization", "-attachment_count", "-id"], name="policy_by_attachments"),
        ]

    def __str__(self) -> str:
        return self.name


class Attachment(models.Model):
    """A policy on one scope. The scope's key is unique: a scope holds one policy at most."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="attachments")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="attachments")
    scope_key = models.CharField(max_length=1100, unique=True)
    scope_type = models.CharField(max_length=12, choices=[(t.value, t.label) for t in ScopeType])
    attached_at = models.DateTimeField()
    attached_by = models.CharField(max_length=255)
    # Where the scope stood in the list that attached it: the Terraform provider wants its lists back in their order.
    place = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        ordering = ["scope_key"]

    def __str__(self) -> str:
        return self.scope_key

    @property
    def scope(self) -> Scope:
        """The scope that `scope_key` names."""
        return Scope.from_key(self.scope_key)


class HistoryIsAppendOnly(TypeError):
    """Raised when code tries to change or delete a history event."""


class HistoryQuerySet(models.QuerySet["HistoryEvent"]):
    """History can be read and added to, nothing else."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise HistoryIsAppendOnly("History events are never changed.")

    def delete(self) -> NoReturn:
        raise HistoryIsAppendOnly("History events are never deleted.")

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise HistoryIsAppendOnly("History events are never changed.")


class HistoryEvent(models.Model):
    """One change to a policy, told in values: it outlives the policy, the person and the scope that it names."""

    class Kind(models.TextChoices):
        CREATED = "created", "Policy Created"
        UPDATED = "updated", "Policy Updated"
        ATTACHED = "attached", "Policy Attached"
        DETACHED = "detached", "Policy Detached"
        DELETED = "deleted", "Policy Deleted"

    owner = models.CharField(max_length=255)
    policy_id = models.BigIntegerField()
    policy_name = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    actor = models.CharField(max_length=255)
    actor_kind = models.CharField(max_length=20)
    at = models.DateTimeField()
    version = models.PositiveIntegerField()
    name_before = models.CharField(max_length=100, blank=True)
    description_before = models.CharField(max_length=500, blank=True)
    description_after = models.CharField(max_length=500, blank=True)
    text_before = models.TextField(blank=True)
    text_after = models.TextField(blank=True)
    scopes_added = models.JSONField(default=list)
    scopes_removed = models.JSONField(default=list)
    reason = models.CharField(max_length=500, blank=True)

    objects = HistoryQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["owner", "policy_id", "-id"], name="history_of_policy"),
            models.Index(fields=["owner", "-id"], name="history_of_owner"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.policy_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the event; raises HistoryIsAppendOnly when it is stored already."""
        if not self._state.adding:
            raise HistoryIsAppendOnly("History events are never changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises HistoryIsAppendOnly, always."""
        raise HistoryIsAppendOnly("History events are never deleted.")
