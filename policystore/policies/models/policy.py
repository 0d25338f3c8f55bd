"""Policies, and the scopes that they are attached to."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policy_language import exceptions
from policystore.policy_language.document import read_reply
from policystore.policy_language.exceptions import OpenException
from policystore.policy_language.scopes import Scope, ScopeType


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
    version = models.PositiveIntegerField(default=1)
    egress_policy = models.CharField(max_length=5, choices=Mode.choices)
    endpoint_count = models.PositiveIntegerField()
    attachment_count = models.PositiveIntegerField(default=0)
    # The number of risky endpoints in the reply (see policy_language.risks).
    risk_count = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=255)
    changed_at = models.DateTimeField()
    changed_by = models.CharField(max_length=255)
    # In lower case. Stands before the other long texts: SQLite reads a row from the left, so a scan skips those.
    search_text = models.TextField()
    text = models.TextField()
    reply = models.TextField()
    # The open exceptions, as `policy_language.exceptions` encodes them: the fetch adds the active ones to the reply.
    open_exceptions = models.TextField(default="", db_default="")

    class Meta:
        verbose_name_plural = "policies"
        constraints = [models.UniqueConstraint(fields=["organization", "name_key"], name="policy_name_once")]
        indexes = [
            models.Index(fields=["organization", "-changed_at", "-id"], name="policy_by_change"),
            models.Index(fields=["organization", "-endpoint_count", "-id"], name="policy_by_endpoints"),
            models.Index(fields=["organization", "-attachment_count", "-id"], name="policy_by_attachments"),
            # The counters above the list read this index alone.
            models.Index(
                fields=["organization", "egress_policy", "attachment_count", "risk_count"], name="policy_list_counters"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def listed_endpoints(self) -> list[str]:
        """The JSON compiled from the text and its sets, without exceptions."""
        listed: list[str] = read_reply(self.reply)["allowed_endpoints"]
        return listed

    @property
    def served_reply(self) -> str:
        """The JSON that runners get now: the reply and the active exceptions, except never-allowed hosts."""
        return exceptions.reply_at(self.reply, self.open_exceptions, timezone.now())

    @property
    def served_endpoints(self) -> list[str]:
        """The endpoints of that."""
        served: list[str] = read_reply(self.served_reply)["allowed_endpoints"]
        return served

    @property
    def exception_count(self) -> int:
        """How many exceptions hold now."""
        return len(self.exceptions_now)

    @property
    def exceptions_now(self) -> list[OpenException]:
        """The exceptions that hold and are served."""
        return exceptions.open_at(self.open_exceptions, timezone.now())


class Attachment(models.Model):
    """A policy on one scope. The scope's key is unique: a scope holds one policy at most."""

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="attachments")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="attachments")
    scope_key = models.CharField(max_length=1100, unique=True)
    scope_type = models.CharField(max_length=12, choices=[(t.value, t.label) for t in ScopeType])
    attached_at = models.DateTimeField()
    attached_by = models.CharField(max_length=255)

    class Meta:
        ordering = ["scope_key"]

    def __str__(self) -> str:
        return self.scope_key

    @property
    def scope(self) -> Scope:
        """The scope that `scope_key` names."""
        return Scope.from_key(self.scope_key)
