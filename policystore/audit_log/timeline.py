"""Queries of the history pages and the export: filters, and events newest first, each with its diff and its scopes."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

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
UNCHANGED = ("equal", "gap")
# The rest of a longer diff is shown on request.
ROWS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A history event, ready to show: `name_change` and `description_change` are (before, after), or None.

    `rows_left_out` is how many rows of the diff come after `rows`. `lines_added` and `lines_removed` count all of them.
    """

    event: HistoryEvent
    rows: list[DiffRow]
    rows_left_out: int
    lines_added: int
    lines_removed: int
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
        changed = event.reply_after or self.rows or self.name_change or self.description_change
        return event.is_of_policy and bool(event.text_after and changed)

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
    """One page of these events, newest first.

    `full` is the id of an event whose diff has all lines. For `among` see `newest_first`.
    """
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
        lines_added=sum(row.kind not in UNCHANGED and row.right_number is not None for row in rows),
        lines_removed=sum(row.kind not in UNCHANGED and row.left_number is not None for row in rows),
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


# The most subjects of one name, past and present, that a filter finds.
MAX_SUBJECTS = 200


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Filters of the history; an empty value does not filter.

    `person` made the change. `policy` is a present or former name of the changed policy or endpoint set, and
    `policy_id` the policy that has this name now, if any. `subject` is a type and an id. `scope` is
    part of a scope that was added or removed. `since` is included, `until` is not.
    """

    person: str = ""
    policy: str = ""
    policy_id: int | None = None
    subject: tuple[str, int] | None = None
    scope: str = ""
    kind: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_of_policies(self) -> bool:
        """True if it filters by values that only policy history has."""
        return bool(self.policy or self.subject or self.scope or self.kind)

    def events(self, organization: Organization) -> QuerySet[HistoryEvent]:
        """The history events that fit, in no order."""
        events = HistoryEvent.objects.filter(self._who_and_when(), owner=organization.key)
        if self.subject:
            events = events.filter(subject_type=self.subject[0], subject_id=self.subject[1])
        if self.policy:
            events = events.filter(_named(organization, self.policy, self.policy_id))
        if self.kind:
            events = events.filter(kind=self.kind)
        return _touching(events, self.scope) if self.scope else events

    def looked_through(self, organization: Organization) -> QuerySet[HistoryEvent] | None:
        """The events that the database must read to find the matching ones; None if indexes find them."""
        return replace(self, scope="").events(organization) if self.scope else None

    def account_events(self, organization: Organization) -> QuerySet[AccountEvent]:
        """The events of keys, members and settings that fit, in no order; none if it filters by a policy."""
        if self.is_of_policies:
            return AccountEvent.objects.none()
        return AccountEvent.objects.filter(self._who_and_when(), owner=organization.key)

    def _who_and_when(self) -> Q:
        wanted = Q()
        if self.person:
            wanted &= Q(actor__in={self.person, self.person.lower()})
        if self.since:
            wanted &= Q(at__gte=self.since)
        if self.until:
            wanted &= Q(at__lt=self.until)
        return wanted


def _named(organization: Organization, name: str, policy_id: int | None) -> Q:
    """The events of all subjects that have or had this name, including those under other names."""
    called = HistoryEvent.objects.filter(owner=organization.key, subject_name=name).order_by()
    ids: defaultdict[str, set[int]] = defaultdict(set)
    for subject_type, subject_id in called.values_list("subject_type", "subject_id").distinct()[:MAX_SUBJECTS]:
        ids[subject_type].add(subject_id)
    if policy_id is not None:
        ids[HistoryEvent.SubjectType.POLICY].add(policy_id)
    wanted = Q(pk__in=[])
    for subject_type, found in ids.items():
        wanted |= Q(subject_type=subject_type, subject_id__in=found)
    return wanted


def _touching(events: QuerySet[HistoryEvent], scope: str) -> QuerySet[HistoryEvent]:
    """Events that added or removed a scope whose key contains this text.

    Both columns are compared as the text of their JSON, in which SQLite keeps what is not ASCII as escapes.
    """
    wanted = Q()
    for encoded in {json.dumps(scope)[1:-1], json.dumps(scope, ensure_ascii=False)[1:-1]}:
        wanted |= Q(added_text__icontains=encoded) | Q(removed_text__icontains=encoded)
    texts = {"added_text": Cast("scopes_added", TextField()), "removed_text": Cast("scopes_removed", TextField())}
    return events.exclude(scopes_added=[], scopes_removed=[]).alias(**texts).filter(wanted)
