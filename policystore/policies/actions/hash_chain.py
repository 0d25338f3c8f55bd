"""Gives events their place in the chain of their organization.

The lock of a chain's head is only ever tried, never waited for: an action that records events may go on to take any
other lock without a deadlock. Whoever finds the head locked leaves its events to its own commit, and what that leaves
to the worker, which also seals what the previous release and the lower apps write.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from policystore.policies.chain import HISTORY, LEDGERS, Ledger, Place, following
from policystore.policies.models import HistoryHead

# So many waiting events are sealed in passing; a longer backlog, as after an upgrade, is the worker's.
FEW = 100
STEP = 500
STEPS_A_TURN = 4


def seal_recorded(owner: str) -> None:
    """Seal the history event that was just written, in the same transaction or, failing that, right after it."""
    if not seal(HISTORY, owner, most=FEW):
        transaction.on_commit(partial(seal, HISTORY, owner, most=FEW), robust=True)


def seal_waiting() -> None:
    """Seal what still waits, oldest first, as much as fits between two turns of the worker."""
    steps = STEPS_A_TURN
    for ledger in LEDGERS:
        for owner in ledger.owners_with_unsealed():
            while steps and _seal_step(ledger, owner):
                steps -= 1


def seal(ledger: Ledger, owner: str, *, most: int) -> bool:
    """Seal all waiting events of the organization; False when somebody else is at it, or more than `most` wait."""
    with transaction.atomic(savepoint=False):
        head = _locked_head(ledger, owner)
        if head is None:
            return False
        waiting = list(ledger.unsealed(owner)[: most + 1])
        if len(waiting) > most:
            return False
        _append(ledger, head, waiting)
    return True


def _seal_step(ledger: Ledger, owner: str) -> bool:
    """Seal the first STEP waiting events; whether there may be more."""
    with transaction.atomic():
        head = _locked_head(ledger, owner)
        if head is None:
            return False
        waiting = list(ledger.unsealed(owner)[:STEP])
        _append(ledger, head, waiting)
    return len(waiting) == STEP


def _locked_head(ledger: Ledger, owner: str) -> HistoryHead | None:
    """The head, locked until the transaction ends; None while another transaction has it."""
    heads = HistoryHead.objects.filter(ledger=ledger.name, owner=owner)
    if not heads.exists():
        HistoryHead.objects.bulk_create([HistoryHead(ledger=ledger.name, owner=owner)], ignore_conflicts=True)
    return heads.select_for_update(skip_locked=True).first()


def _append(ledger: Ledger, head: HistoryHead, events: list[Any]) -> None:
    if not events:
        return
    place = Place(head.sequence, head.digest)
    for event in events:
        place = following(ledger, place, event)
        event.sequence, event.digest = place.sequence, place.digest
    QuerySet(model=ledger.model).bulk_update(events, ["sequence", "digest"], batch_size=100)
    HistoryHead.objects.filter(pk=head.pk).update(sequence=place.sequence, digest=place.digest)
