"""Walks a chain of events and names the first that does not fit. Reads in steps, so any length fits into memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import chain as both
from typing import Any

from django.utils import timezone

from policystore.audit_log.hash_chain import BEGINNING, LEDGERS, Ledger, Place, following
from policystore.audit_log.models import HistoryCheck, HistoryEvent, HistoryHead

STEP = 200
NOTHING_SIGNED: Mapping[int, str] = {}
# Transactions that overlap may number their events in another order than that of their commits, never so far apart.
OVERLAP = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """How far a walk came: everything up to `place` fits; `misfit` says what does not, in words, beginning with it.

    `ended` when the walk came to the chain's end.
    """

    place: Place
    misfit: str = ""
    ended: bool = False


def owners() -> list[str]:
    """Every organization that has events or a chain, also one that the inventory no longer has."""
    found = set(HistoryHead.objects.values_list("owner", flat=True))
    for ledger in LEDGERS:
        found.update(ledger.model._default_manager.order_by().values_list("owner", flat=True).distinct())
    return sorted(found)


def verify(
    ledger: Ledger,
    owner: str,
    *,
    start: Place = BEGINNING,
    most: int | None = None,
    signed: Mapping[int, str] = NOTHING_SIGNED,
) -> Finding:
    """Walk the chain from `start`, which was verified before, over at most so many events.

    `signed` maps sequences to the digests that were signed for them. The end of the chain is checked only where the
    walk comes to it: nothing may be missing there, nor lie beyond the head.
    """
    walk = _Walk(ledger, owner, signed, start)
    if not walk.found_start():
        return Finding(start, f"{ledger.word} {start.sequence} is not the one that was verified before")
    left = STEP if most is None else most
    while left and (events := walk.read(min(STEP, left))):
        for event in events:
            if misfit := walk.take(event):
                return Finding(walk.place, misfit)
        left -= 0 if most is None else len(events)
    return Finding(walk.place, walk.end(), ended=True) if left else Finding(walk.place)


class _Walk:
    """A walk over one chain: where it stands, and the newest event (by id) that it has met."""

    def __init__(self, ledger: Ledger, owner: str, signed: Mapping[int, str], start: Place) -> None:
        self.ledger, self.signed, self.place = ledger, signed, start
        self.rows = ledger.rows(owner)
        self.heads = HistoryHead.objects.filter(ledger=ledger.name, owner=owner)
        self.newest: Any = self.rows.filter(sequence=start.sequence, digest=start.digest).first()

    def found_start(self) -> bool:
        return self.place == BEGINNING or self.newest is not None

    def read(self, most: int) -> list[Any]:
        return list(self.rows.filter(sequence__gt=self.place.sequence).order_by("sequence")[:most])

    def take(self, event: Any) -> str:
        """Go on to `event`; what is wrong with it, else an empty text."""
        expected = following(self.ledger, self.place, event)
        if event.sequence != expected.sequence:
            return f"{self.ledger.word} {expected.sequence} is missing; what follows is {self._told(event)}"
        if event.digest != expected.digest:
            changed = "one of its values was changed, or the event was moved or put in"
            return f"{self._told(event)} is not what was sealed there: {changed}"
        if self.signed.get(event.sequence, event.digest) != event.digest:
            return f"{self._told(event)} is not the one whose digest was signed"
        if self.newest is not None and event.pk < self.newest.pk and event.at < self.newest.at - OVERLAP:
            return (
                f"{self._told(event)} was put in later, among older ones: its id comes before {self._told(self.newest)}"
            )
        self.newest = event if self.newest is None or event.pk > self.newest.pk else self.newest
        self.place = expected
        return ""

    def end(self) -> str:
        """Describe what is wrong with the end of the chain, once the walk has reached it; empty if nothing is."""
        return self._wrong_end(self._head()) or self._unsigned_end() or self._put_in_unsealed()

    def _head(self) -> Place:
        head = self.heads.first()
        return Place(head.sequence, head.digest) if head else BEGINNING

    def _wrong_end(self, head: Place) -> str:
        word, last = self.ledger.word, self.place.sequence
        if head.sequence < last:
            return f"{word} {head.sequence + 1} lies beyond the head of the chain, which was set back or removed"
        # What is there by now was sealed after the walk had read the last events.
        if head.sequence > last and not self.read(1):
            return self._missing(head.sequence)
        if head.sequence == last and head.digest != self.place.digest:
            return f"{word} {last}, the last one, is not the one that the head of the chain names"
        return ""

    def _unsigned_end(self) -> str:
        until = max(self.signed, default=0)
        return f"{self._missing(until)} (a head was signed for {until})" if until > self.place.sequence else ""

    def _missing(self, until: int) -> str:
        first, gone = self.place.sequence + 1, until - self.place.sequence
        which = f"{first} is" if gone == 1 else f"{first} and all after it up to {until} are"
        last = f"the last one there is {first - 1}" if first > 1 else "there is none"
        return f"{self.ledger.word} {which} missing at the end; {last}"

    def _put_in_unsealed(self) -> str:
        if self.newest is None:
            return ""
        old = self.rows.filter(sequence__isnull=True, pk__lt=self.newest.pk, at__lt=self.newest.at - OVERLAP)
        event = old.order_by("pk").first()
        return f"{self._told(event)} was put in later, among older ones, and is not sealed" if event else ""

    def _told(self, event: Any) -> str:
        number = f" {event.sequence}" if event.sequence is not None else ""
        about = event.subject_name if isinstance(event, HistoryEvent) else event.subject
        label = event.label if isinstance(event, HistoryEvent) else event.kind
        at = event.at.astimezone(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
        return f"{self.ledger.word}{number} (id {event.pk}: {label}, {about}, by {event.actor} at {at} UTC)"


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
