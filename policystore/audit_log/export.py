"""The history as CSV and as JSON Lines, oldest first, an event at a time: of any length in little memory."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from typing import Any, Final

from django.db.models import QuerySet

from policystore.accounts.models import AccountEvent
from policystore.audit_log.hash_chain import ACCOUNTS, HISTORY
from policystore.audit_log.models import HistoryEvent
from policystore.audit_log.timeline import HistoryFilter
from policystore.inventory.models import Organization
from policystore.web import csv_export

STEP = 100
COLUMNS: Final = (
    "at",
    "ledger",
    "sequence",
    "id",
    "owner",
    "kind",
    "label",
    "actor",
    "actor_kind",
    "subject_type",
    "subject_id",
    "subject_name",
    "version",
    "name_before",
    "description_before",
    "description_after",
    "scopes_added",
    "scopes_removed",
    "reason",
    "details",
    "text_before",
    "text_after",
    "reply_after",
    "digest",
)

Row = dict[str, Any]


def rows(organization: Organization, wanted: HistoryFilter, *, of: str = "") -> Iterator[Row]:
    """The matching events, oldest first: those of policies merged with those of keys, members and settings.

    `of` limits the export to one ledger (a name of `hash_chain.LEDGERS`). Each row has every one of COLUMNS; what
    the events of keys and members do not have is empty or None.
    """
    streams: list[Iterator[Row]] = []
    if of in ("", HISTORY.name):
        streams.append(map(_history_row, _stream(wanted.events(organization))))
    if of in ("", ACCOUNTS.name):
        streams.append(map(_account_row, _stream(wanted.account_events(organization))))
    return heapq.merge(*streams, key=lambda row: str(row["at"]))


def as_json_lines(found: Iterable[Row]) -> Iterator[str]:
    """One object an event."""
    for row in found:
        yield json.dumps(row, ensure_ascii=False) + "\n"


def as_csv(found: Iterable[Row]) -> Iterator[str]:
    """A line of headings, then one row an event: scopes on lines of their own, details as JSON."""
    return csv_export.lines(COLUMNS, ([row[name] for name in COLUMNS] for row in found))


FORMATS: Final[dict[str, tuple[str, Callable[[Iterable[Row]], Iterator[str]]]]] = {
    "csv": ("text/csv", as_csv),
    "jsonl": ("application/x-ndjson", as_json_lines),
}


def _stream(events: QuerySet[Any]) -> Iterator[Any]:
    after = 0
    ordered = events.order_by("pk")
    while step := list(ordered.filter(pk__gt=after)[:STEP]):
        yield from step
        after = step[-1].pk


def _history_row(event: HistoryEvent) -> Row:
    own = {name: getattr(event, name) for name in COLUMNS if name not in ("at", "ledger")}
    return {"at": _at(event), "ledger": HISTORY.name, **own}


def _account_row(event: AccountEvent) -> Row:
    row: Row = dict.fromkeys(COLUMNS, "")
    return row | {
        "at": _at(event),
        "ledger": ACCOUNTS.name,
        "sequence": event.sequence,
        "id": event.pk,
        "owner": event.owner,
        "kind": event.kind,
        "label": event.kind.capitalize(),
        "actor": event.actor,
        "subject_id": None,
        "subject_name": event.subject,
        "version": None,
        "scopes_added": [],
        "scopes_removed": [],
        "reason": event.detail,
        "details": {},
        "digest": event.digest,
    }


def _at(event: HistoryEvent | AccountEvent) -> str:
    return event.at.astimezone(UTC).isoformat(timespec="microseconds")
