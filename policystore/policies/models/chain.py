"""How far the chain of an organization's events reaches."""

from __future__ import annotations

from django.db import models


class HistoryHead(models.Model):
    """The last sealed event of a ledger (`chain.LEDGERS`) of an organization: its sequence and digest.

    Whoever seals holds this row's lock. It also tells that events are gone when the last ones were removed.
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
    """What the worker found in the database that the history does not account for, one row for each subject.

    `problems` are sentences. The row goes when the rows of the subject are as the history recorded them again.
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
