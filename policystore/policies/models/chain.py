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
