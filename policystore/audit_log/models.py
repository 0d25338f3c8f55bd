"""History events (append-only: what changed, who changed it and when) and the state of their hash chain."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.db.models import JSONField, Q, Value

from policystore.accounts.models import Sealed
from policystore.audit_log import event_types


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


class HistoryEvent(Sealed):
    """One change, stored as values: it outlives the policy, the person and the scope that it names.

    Every column is sealed under its name, unless it is empty: one that is added is empty in the events before it, and
    none is ever renamed (see `audit_log.hash_chain`).

    `subject_*` say what was changed: mostly a policy, else what SubjectType lists. `kind` is one of `event_types`;
    `details` has what does not fit into the columns.
    """

    class SubjectType(models.TextChoices):
        POLICY = "policy", "Policy"
        ENDPOINT_SET = "endpoint_set", "Endpoint set"
        ORGANIZATION = "organization", "Organization"

    owner = models.CharField(max_length=255)
    subject_type = models.CharField(max_length=20, default=SubjectType.POLICY, db_default=SubjectType.POLICY)
    subject_id = models.BigIntegerField()
    subject_name = models.CharField(max_length=255)
    kind = models.CharField(max_length=40)
    actor = models.CharField(max_length=255)
    actor_kind = models.CharField(max_length=20)
    at = models.DateTimeField()
    version = models.PositiveIntegerField()
    name_before = models.CharField(max_length=100, blank=True)
    description_before = models.CharField(max_length=500, blank=True)
    description_after = models.CharField(max_length=500, blank=True)
    text_before = models.TextField(blank=True)
    text_after = models.TextField(blank=True)
    # What runners were served from this event on; empty where it changed nothing for them.
    reply_after = models.TextField(blank=True, default="", db_default="")
    scopes_added = models.JSONField(default=list)
    scopes_removed = models.JSONField(default=list)
    reason = models.CharField(max_length=500, blank=True)
    details = models.JSONField(default=dict, blank=True, db_default=Value({}, output_field=JSONField()))

    objects = HistoryQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "sequence"], name="history_sequence_once")]
        indexes = [
            models.Index(fields=["owner", "subject_id", "-id"], name="history_of_policy"),
            models.Index(fields=["owner", "-id"], name="history_of_owner"),
            models.Index(fields=["owner", "actor", "-id"], name="history_of_person"),
            models.Index(fields=["owner", "kind", "-id"], name="history_of_kind"),
            models.Index(fields=["owner", "subject_name"], name="history_by_name"),
            models.Index(fields=["owner", "at"], name="history_by_time"),
            models.Index(fields=["owner", "id"], name="history_unsealed", condition=Q(sequence__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"{self.label}: {self.subject_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert the event; raises HistoryIsAppendOnly when it is stored already."""
        if not self._state.adding:
            raise HistoryIsAppendOnly("History events are never changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises HistoryIsAppendOnly, always."""
        raise HistoryIsAppendOnly("History events are never deleted.")

    @property
    def label(self) -> str:
        """The label of this kind of event, such as `Policy Updated`."""
        return event_types.of(self.kind).label

    @property
    def is_of_endpoint_set(self) -> bool:
        """True if an endpoint set was changed."""
        return self.subject_type == self.SubjectType.ENDPOINT_SET

    @property
    def is_of_policy(self) -> bool:
        """True if a policy was changed."""
        return self.subject_type == self.SubjectType.POLICY


class HistoryHead(models.Model):
    """The last sealed event of a ledger (`hash_chain.LEDGERS`) of an organization: its sequence and digest.

    The process that seals events locks this row. It also reveals that the last events were removed.
    """

    ledger = models.CharField(max_length=20)
    owner = models.CharField(max_length=255)
    sequence = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["ledger", "owner"], name="one_history_head")]

    def __str__(self) -> str:
        return f"{self.ledger} of {self.owner}: {self.sequence}"


class IntegrityProblem(models.Model):
    """Problems that the worker found in the database and that the history does not explain, one row per subject.

    `problems` are sentences. The row is deleted once the subject's rows match the history again.
    """

    owner = models.CharField(max_length=255)
    subject_type = models.CharField(max_length=20)
    subject_id = models.BigIntegerField()
    problems = models.JSONField(default=list)
    found_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "subject_type", "subject_id"], name="one_integrity_problem")
        ]

    def __str__(self) -> str:
        return f"{self.subject_type} {self.subject_id} of {self.owner}"


class HistoryCheck(models.Model):
    """How far a chain was verified by the worker: all of it once, and then again and again from its beginning.

    `sequence` and `digest` are the last event up to which all fit; `swept_*` where the next look at old events begins;
    `problem` says which event does not fit. `signed_sequence` is the last head that was signed and put away.
    """

    ledger = models.CharField(max_length=20)
    owner = models.CharField(max_length=255)
    sequence = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True)
    swept_sequence = models.BigIntegerField(default=0)
    swept_digest = models.CharField(max_length=64, blank=True)
    swept_at = models.DateTimeField(null=True, blank=True)
    problem = models.TextField(blank=True)
    checked_at = models.DateTimeField(null=True, blank=True)
    signed_sequence = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["ledger", "owner"], name="one_history_check")]

    def __str__(self) -> str:
        return f"{self.ledger} of {self.owner}: {self.problem or self.sequence}"
