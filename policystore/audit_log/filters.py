"""Filters the history by person, policy, scope, kind and time, for its pages and its export."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from policystore.accounts.models import AccountEvent
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization

# Of all that was ever called so.
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
        """The events that are to be looked through to find those; None where indexes find them."""
        return replace(self, scope="").events(organization) if self.scope else None

    def account_events(self, organization: Organization) -> QuerySet[AccountEvent]:
        """The events of keys, members and settings that fit, in no order; none where a policy is asked for."""
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
    """Everything about what has this name now, or had it once: also what happened to it under other names."""
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
    """Events that added or removed a scope whose key has this text in it.

    Both columns are compared as the text of their JSON, in which SQLite keeps what is not ASCII as escapes.
    """
    wanted = Q()
    for written in {json.dumps(scope)[1:-1], json.dumps(scope, ensure_ascii=False)[1:-1]}:
        wanted |= Q(added_text__icontains=written) | Q(removed_text__icontains=written)
    texts = {
        "added_text": Cast("scopes_added", TextField()),
        "removed_text": Cast("scopes_removed", TextField()),
    }
    return events.exclude(scopes_added=[], scopes_removed=[]).alias(**texts).filter(wanted)
