"""The chain that makes a history tamper-evident: computes digests, seals events, and verifies what was sealed.

The digest of an event is the SHA-256 of one line of JSON, in ASCII, with keys in order and no spaces:

    {"after": DIGEST OF THE EVENT BEFORE, "format": 1, "ledger": "history", "sequence": 7, "values": {…}}

`values` has every column by its name, times in UTC to the microsecond; what is empty ("", null, [] or {}) is left out,
so that a column added later does not change what was sealed before. Fractions, and numbers beyond 2**53, are written as
the text of a float. The same values give the same line on SQLite and PostgreSQL, whatever their JSON columns do to the
order of keys and to numbers.

The hash has no key: anyone who holds an export can recompute it, and a restored store verifies without a secret. What
it cannot show, a chain that was recomputed as a whole, is shown by signed heads kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policystore.accounts.models import AccountEvent
from policystore.audit_log.models import HistoryCheck, HistoryEvent, HistoryHead

FORMAT: Final = 1
_NOT_SEALED = ("sequence", "digest")
# Beyond this, databases differ in whether they give back a whole number or a float.
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Ledger:
    """A table of events that is chained, an organization at a time; `word` is what messages call an event of it."""

    name: str
    word: str
    model: type[HistoryEvent] | type[AccountEvent]

    def rows(self, owner: str) -> QuerySet[Any]:
        """The organization's events, past the manager that lets nobody change them: for sealing and verifying."""
        return QuerySet(model=self.model).filter(owner=owner)

    def unsealed(self, owner: str) -> QuerySet[Any]:
        """The events that are not sealed yet, in the order in which they will be."""
        return self.rows(owner).filter(sequence__isnull=True).order_by("pk")

    def owners_with_unsealed(self) -> list[str]:
        """The organizations that have such events."""
        waiting: QuerySet[Any] = QuerySet(model=self.model).filter(sequence__isnull=True)
        return list(waiting.order_by("owner").values_list("owner", flat=True).distinct())


HISTORY: Final = Ledger("history", "history event", HistoryEvent)
ACCOUNTS: Final = Ledger("accounts", "account event", AccountEvent)
LEDGERS: Final = (HISTORY, ACCOUNTS)


@dataclass(frozen=True, slots=True)
class Place:
    """A point in a chain: how many events lead up to it, and the digest of the last of them."""

    sequence: int = 0
    digest: str = ""


BEGINNING: Final = Place()


def following(ledger: Ledger, place: Place, event: HistoryEvent | AccountEvent) -> Place:
    """The point in the chain after `event`, if that is the next event after `place`."""
    line = json.dumps(
        {
            "after": place.digest,
            "format": FORMAT,
            "ledger": ledger.name,
            "sequence": place.sequence + 1,
            "values": dict(_values(event)),
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    return Place(place.sequence + 1, hashlib.sha256(line.encode("ascii")).hexdigest())


def _values(event: HistoryEvent | AccountEvent) -> Iterator[tuple[str, Any]]:
    for field in event._meta.concrete_fields:
        value = getattr(event, field.attname)
        if field.attname not in _NOT_SEALED and value not in ("", None, [], {}):
            yield field.attname, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) or (isinstance(value, int) and abs(value) > _EXACT):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) <= _EXACT else repr(number)
    return value


# A change seals up to this many waiting events along with its own. A longer backlog is left to the worker.
FEW = 100
SEALED_PER_STEP = 500
STEPS_A_TURN = 4


def seal_recorded(owner: str) -> None:
    """Seal the history event that was just written, in the same transaction or, failing that, right after it."""
    if not seal(HISTORY, owner, most=FEW):
        transaction.on_commit(partial(seal, HISTORY, owner, most=FEW), robust=True)


def seal_waiting() -> None:
    """Seal events that still wait, oldest first, as many as fit between two turns of the worker."""
    steps = STEPS_A_TURN
    for ledger in LEDGERS:
        for owner in ledger.owners_with_unsealed():
            while steps and _seal_step(ledger, owner):
                steps -= 1


def seal(ledger: Ledger, owner: str, *, most: int) -> bool:
    """Seal all waiting events of the organization; False if another process is sealing, or more than `most` wait."""
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
    """Seal the first SEALED_PER_STEP waiting events; returns True if there may be more."""
    with transaction.atomic():
        head = _locked_head(ledger, owner)
        if head is None:
            return False
        waiting = list(ledger.unsealed(owner)[:SEALED_PER_STEP])
        _append(ledger, head, waiting)
    return len(waiting) == SEALED_PER_STEP


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


# Events are verified in steps, so that a chain of any length fits into memory.
VERIFIED_PER_STEP = 200
NOTHING_SIGNED: Mapping[int, str] = {}
# Transactions that overlap may number their events in another order than that of their commits, never so far apart.
OVERLAP = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """How far a walk came: everything up to `place` fits; `misfit` describes the first event that does not.

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
    left = VERIFIED_PER_STEP if most is None else most
    while left and (events := walk.read(min(VERIFIED_PER_STEP, left))):
        for event in events:
            if misfit := walk.take(event):
                return Finding(walk.place, misfit)
        left -= 0 if most is None else len(events)
    return Finding(walk.place, walk.end(), ended=True) if left else Finding(walk.place)


class _Walk:
    """A walk over one chain: its place, and the newest event (by id) so far."""

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
        """Advance to `event`; returns what is wrong with it, or an empty text."""
        expected = following(self.ledger, self.place, event)
        if event.sequence != expected.sequence:
            return f"{self.ledger.word} {expected.sequence} is missing; what follows is {self._described(event)}"
        if event.digest != expected.digest:
            changed = "one of its values was changed, or the event was moved or put in"
            return f"{self._described(event)} is not what was sealed there: {changed}"
        if self.signed.get(event.sequence, event.digest) != event.digest:
            return f"{self._described(event)} is not the one whose digest was signed"
        if self.newest is not None and event.pk < self.newest.pk and event.at < self.newest.at - OVERLAP:
            newest = self._described(self.newest)
            return f"{self._described(event)} was put in later, among older ones: its id comes before {newest}"
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
        # Events that are there now were sealed after the walk had read the last ones.
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
        return f"{self._described(event)} was put in later, among older ones, and is not sealed" if event else ""

    def _described(self, event: Any) -> str:
        number = f" {event.sequence}" if event.sequence is not None else ""
        about = event.subject_name if isinstance(event, HistoryEvent) else event.subject
        label = event.label if isinstance(event, HistoryEvent) else event.kind
        at = event.at.astimezone(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
        return f"{self.ledger.word}{number} (id {event.pk}: {label}, {about}, by {event.actor} at {at} UTC)"


# Events per turn: new ones, and old ones that are verified again.
NEW, OLD = 2000, 500


def check_all() -> None:
    """Verify the next part of every chain, even of one whose head was removed."""
    for ledger in LEDGERS:
        for owner in sorted(_owners_of(ledger)):
            check(ledger, owner)


def check(ledger: Ledger, owner: str, *, new: int | None = NEW, old: int = OLD) -> HistoryCheck:
    """Verify the events that are new since the last time, at most `new`, and the next `old` of the others again.

    An event that does not fit is checked again each time, so that the problem disappears once it fits.
    """
    state, _ = HistoryCheck.objects.get_or_create(ledger=ledger.name, owner=owner)
    ahead = verify(ledger, owner, start=Place(state.sequence, state.digest), most=new)
    again = verify(ledger, owner, start=Place(state.swept_sequence, state.swept_digest), most=old)
    state.sequence, state.digest = ahead.place.sequence, ahead.place.digest
    _sweep(state, again)
    state.problem = again.misfit or ahead.misfit
    state.checked_at = timezone.now()
    state.save(
        update_fields=["sequence", "digest", "swept_sequence", "swept_digest", "swept_at", "problem", "checked_at"]
    )
    return state


def _sweep(state: HistoryCheck, again: Finding) -> None:
    place = again.place
    if again.ended and not again.misfit:
        place, state.swept_at = BEGINNING, timezone.now()
    state.swept_sequence, state.swept_digest = place.sequence, place.digest


def _owners_of(ledger: Ledger) -> set[str]:
    heads = HistoryHead.objects.filter(ledger=ledger.name).values_list("owner", flat=True)
    checks = HistoryCheck.objects.filter(ledger=ledger.name).values_list("owner", flat=True)
    return {*heads, *checks}
