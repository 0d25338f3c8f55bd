"""Verifies the chains a step at a time, so that pages can tell how they are without walking them."""

from __future__ import annotations

from itertools import chain as both

from django.utils import timezone

from policystore.policies.chain import BEGINNING, LEDGERS, Ledger, Place
from policystore.policies.models import HistoryCheck, HistoryHead
from policystore.policies.verification import Finding, verify

# Events a turn: new ones, and old ones that are looked at again.
NEW, OLD = 2000, 500


def check_all() -> None:
    """Go a step further with every chain, also one whose head was removed."""
    for ledger in LEDGERS:
        for owner in sorted(_owners(ledger)):
            check(ledger, owner)


def check(ledger: Ledger, owner: str, *, new: int | None = NEW, old: int = OLD) -> HistoryCheck:
    """Verify the events that are new since the last time, at most `new`, and the next `old` of the others again.

    What does not fit is looked at again each time, so that the problem is gone once it does.
    """
    state, _ = HistoryCheck.objects.get_or_create(ledger=ledger.name, owner=owner)
    ahead = verify(ledger, owner, start=Place(state.sequence, state.digest), most=new)
    again = verify(ledger, owner, start=Place(state.swept_sequence, state.swept_digest), most=old)
    state.sequence, state.digest = ahead.place.sequence, ahead.place.digest
    _sweep(state, again)
    state.problem = again.misfit or ahead.misfit
    state.checked_at = timezone.now()
    state.save(
        update_fields=[
            "sequence",
            "digest",
            "swept_sequence",
            "swept_digest",
            "swept_at",
            "problem",
            "checked_at",
        ]
    )
    return state


def _sweep(state: HistoryCheck, again: Finding) -> None:
    place = again.place
    if again.ended and not again.misfit:
        place, state.swept_at = BEGINNING, timezone.now()
    state.swept_sequence, state.swept_digest = place.sequence, place.digest


def _owners(ledger: Ledger) -> set[str]:
    tables = (HistoryHead.objects.all(), HistoryCheck.objects.all())
    return set(both.from_iterable(rows.filter(ledger=ledger.name).values_list("owner", flat=True) for rows in tables))
