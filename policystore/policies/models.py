"""Policies, their scopes, what they are compiled with, and changes that wait for approval."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q, QuerySet
from django.utils import timezone

from policystore.accounts.models import ApiKey
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
    # In lower case. Comes before the other long texts: SQLite reads a row from the left, so a scan skips those.
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

    # True if its host is never allowed; set by the query for pages.
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


class StagedVersion(models.Model):
    """The one version of a policy that is kept beside the live one: its text, and the reply compiled from it.

    `event_id` is the history event that staged it as it is now, by which job runs name what they were served;
    `based_on_version` is the live version that its author had before them.
    """

    policy = models.OneToOneField(Policy, on_delete=models.CASCADE, primary_key=True, related_name="staged")
    text = models.TextField()
    reply = models.TextField()
    egress_policy = models.CharField(max_length=5, choices=Policy.Mode.choices)
    endpoint_count = models.PositiveIntegerField()
    based_on_version = models.PositiveIntegerField()
    event_id = models.BigIntegerField()
    staged_at = models.DateTimeField()
    staged_by = models.CharField(max_length=255)

    def __str__(self) -> str:
        return f"{self.policy}, staged"

    @property
    def served_reply(self) -> str:
        """The JSON that canaries get now, including the policy's exceptions."""
        return exceptions.reply_at(self.reply, self.policy.open_exceptions, timezone.now())


class CanaryScope(models.Model):
    """A scope whose jobs get the staged version, as far as they get its policy at all."""

    staged = models.ForeignKey(StagedVersion, on_delete=models.CASCADE, related_name="canaries")
    scope_key = models.CharField(max_length=1100)

    class Meta:
        ordering = ["scope_key"]
        # Also what the policy fetch looks up.
        constraints = [models.UniqueConstraint(fields=["staged", "scope_key"], name="canary_scope_once")]

    def __str__(self) -> str:
        return self.scope_key

    @property
    def scope(self) -> Scope:
        """The scope that `scope_key` names."""
        return Scope.from_key(self.scope_key)


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
