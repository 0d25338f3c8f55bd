"""The history as CSV and as JSON Lines, oldest first, an event at a time: of any length in little memory."""

from __future__ import annotations

import csv
import heapq
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from typing import IO, Any, Final

from django.db.models import QuerySet

from policystore.accounts.models import AccountEvent
from policystore.audit_log.hash_chain import ACCOUNTS, HISTORY
from policystore.audit_log.models import HistoryEvent
from policystore.audit_log.timeline import HistoryFilter
from policystore.inventory.models import Organization

STEP = 100
CHUNK = 64 * 1024
KEPT_IN_MEMORY = 1024 * 1024
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
# Characters that start a formula in spreadsheets: =+-@, also in full-width form, and blanks before them.
FORMULA: Final = (*"=+-@\t\r\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

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
    """A line of headings, then one row an event: scopes on lines of their own, details as JSON.

    A cell that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    line = _Line()
    writer = csv.writer(line)
    writer.writerow(COLUMNS)
    yield line.text
    for row in found:
        writer.writerow([_cell(row[name]) for name in COLUMNS])
        yield line.text


class _Line:
    """The file that the csv module writes to; keeps only the last line."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


def in_chunks(texts: Iterable[str]) -> Iterator[str]:
    """Join texts into chunks of about CHUNK characters."""
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= CHUNK:
            yield "".join(gathered)
            gathered, size = [], 0
    yield "".join(gathered)


class TooLong(Exception):
    """The time limit was reached before everything was written."""


def in_file(texts: Iterable[str], *, seconds: float) -> IO[bytes]:
    """The text in a temporary file that is deleted when closed, so that a download is complete or refused.

    Raises TooLong if it takes more than so many seconds.
    """
    until = time.monotonic() + seconds
    file: IO[bytes] = io.BytesIO()
    try:
        for chunk in in_chunks(texts):
            if time.monotonic() > until:
                raise TooLong
            file.write(chunk.encode())
            if isinstance(file, io.BytesIO) and file.tell() > KEPT_IN_MEMORY:
                file = _on_disk(file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _on_disk(held: io.BytesIO) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
    file.write(held.getvalue())
    return file


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


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = "\n".join(map(str, value))
    elif isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False) if value else ""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
