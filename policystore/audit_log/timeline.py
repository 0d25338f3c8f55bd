"""Queries of the history pages: events newest first, each with its diff and its scopes."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from policystore.accounts.models import AccountEvent
from policystore.audit_log import event_types
from policystore.audit_log.event_types import EventType
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policy_language.diff import DiffRow, side_by_side
from policystore.policy_language.scopes import Scope, Transition, transitions
from policystore.web.pagination import Page, newest_first

SubjectType = HistoryEvent.SubjectType
EVENTS_PER_PAGE = 25
UNCHANGED_LINES_SHOWN = 3
# Of a diff that is longer, the rest shows when it is asked for: a page has many events.
ROWS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A history event, ready to show: `name_change` and `description_change` are (before, after), or None.

    `rows_left_out` is how many rows of the diff come after `rows`.
    """

    event: HistoryEvent
    rows: list[DiffRow]
    rows_left_out: int
    added: list[Scope]
    removed: list[Scope]
    transitions: list[Transition]
    name_change: tuple[str, str] | None
    description_change: tuple[str, str] | None

    @property
    def type(self) -> EventType:
        """How events of this kind are shown."""
        return event_types.of(self.event.kind)

    @property
    def is_version(self) -> bool:
        """True if the event made a version of its policy."""
        event = self.event
        return event.is_of_policy and bool(event.text_after and (event.reply_after or self.rows or self._is_renamed))

    @property
    def _is_renamed(self) -> bool:
        return bool(self.name_change or self.description_change)

    @property
    def is_folded(self) -> bool:
        """True if unchanged lines are left out of the diff."""
        return self.rows_left_out > 0 or any(row.kind == "gap" for row in self.rows)


def events_of(
    organization: Organization, subject_id: int | None = None, *, subject_type: str = SubjectType.POLICY
) -> QuerySet[HistoryEvent]:
    """The events of an organization, or of one policy (or another subject) of it, newest first."""
    events = HistoryEvent.objects.filter(owner=organization.key).order_by("-pk")
    if subject_id is None:
        return events
    return events.filter(subject_type=subject_type, subject_id=subject_id)


def history_page(
    events: QuerySet[HistoryEvent],
    *,
    before: str = "",
    full: int | None = None,
    among: QuerySet[HistoryEvent] | None = None,
) -> Page[HistoryEntry]:
    """One page of these events, newest first. `full` is the id of an event to show unfolded; for `among` see
    `newest_first`."""
    page = newest_first(events, size=EVENTS_PER_PAGE, before=before, among=among)
    entries = [_entry(event, unfolded=event.pk == full) for event in page.rows]
    return Page(entries, page.next_cursor, looked_through=page.looked_through)


def account_page(events: QuerySet[AccountEvent], *, before: str = "") -> Page[AccountEvent]:
    """One page of events of keys, members and settings, newest first."""
    return newest_first(events, size=EVENTS_PER_PAGE, before=before)


def _entry(event: HistoryEvent, *, unfolded: bool) -> HistoryEntry:
    added = [Scope.from_key(key) for key in event.scopes_added]
    removed = [Scope.from_key(key) for key in event.scopes_removed]
    rows = side_by_side(*_texts(event), context=None if unfolded else UNCHANGED_LINES_SHOWN)
    shown = rows if unfolded else rows[:ROWS_SHOWN]
    return HistoryEntry(
        event=event,
        rows=shown,
        rows_left_out=len(rows) - len(shown),
        added=added,
        removed=removed,
        transitions=transitions(removed, added),
        name_change=(event.name_before, event.subject_name) if event.name_before else None,
        description_change=_description_change(event),
    )


def _texts(event: HistoryEvent) -> tuple[str, str]:
    """Before and after; of a staged version they are in the details, since nothing of it is live."""
    if event.kind in (event_types.STAGED, event_types.STAGED_DISCARDED):
        return event.details["text_before"], event.details["text_after"]
    return event.text_before, event.text_after


def _description_change(event: HistoryEvent) -> tuple[str, str] | None:
    if (
        event.kind not in (event_types.UPDATED, event_types.SET_UPDATED)
        or event.description_before == event.description_after
    ):
        return None
    return event.description_before, event.description_after
