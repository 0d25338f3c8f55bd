"""The chain that makes a history tamper-evident: what an event's digest is computed from.

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
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet

from policystore.accounts.models import AccountEvent
from policystore.audit_log.models import HistoryEvent, HistoryHead

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
        """The events that wait for their seal, in the order in which they get it."""
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
    """Where the chain stands after `event`, if it is the one that follows `place`."""
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
        return _number(float(value))
    return value


def _number(value: float) -> int | str:
    return int(value) if value.is_integer() and abs(value) <= _EXACT else repr(value)


# A change seals up to this many waiting events along with its own. A longer backlog is left to the worker.
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
