"""The exceptions that applied at a time in the past: jobs are judged by what they were served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Q

from policystore.audit_log import event_types
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.models import Policy, PolicyException
from policystore.policy_language.never_allow import NeverAllow, Refused

# Whether each kind of event forbids its host or takes that back.
_FORBIDS: Mapping[str, bool] = {event_types.NEVER_ALLOW_ADDED: True, event_types.NEVER_ALLOW_REMOVED: False}


@dataclass(frozen=True, slots=True)
class _Forbidden:
    """From `since` on, a host is never allowed, or is allowed again."""

    since: datetime
    host: str
    is_forbidden: bool


@dataclass(frozen=True, slots=True)
class PastExceptions:
    """The past exceptions of a policy, and which hosts its organization never allowed, by time."""

    rows: tuple[PolicyException, ...] = ()
    forbidden: tuple[_Forbidden, ...] = ()

    def at(self, at_time: datetime) -> tuple[str, ...]:
        """The endpoints that a job served at this time could reach in addition to the policy's list."""
        found = [row.endpoint for row in self.rows if row.added_at <= at_time < row.over_at]
        if not found:
            return ()
        hosts = {one.host: one.is_forbidden for one in self.forbidden if one.since <= at_time}
        never_allow = NeverAllow(tuple(Refused(host, "") for host, is_forbidden in hosts.items() if is_forbidden))
        return tuple(endpoint for endpoint in found if never_allow.refusing(endpoint) is None)


NOTHING = PastExceptions()


def since(at_time: datetime, policy_ids: Iterable[int]) -> dict[int, PastExceptions]:
    """For each of these policies that has any, the exceptions that were open at this time or are newer."""
    rows = PolicyException.objects.filter(policy__in=policy_ids, expires_at__gt=at_time)
    found: dict[int, list[PolicyException]] = {}
    for row in rows.filter(Q(ended_at__isnull=True) | Q(ended_at__gt=at_time)).order_by("pk"):
        found.setdefault(row.policy_id, []).append(row)
    forbidden = {pk: _forbidden(pk) for pk in {several[0].organization_id for several in found.values()}}
    return {pk: PastExceptions(tuple(several), forbidden[several[0].organization_id]) for pk, several in found.items()}


def of_policy(organization: Organization, policy_id: int, *, at: datetime) -> tuple[str, ...]:
    """The endpoints that its exceptions allowed at a time, even if the policy has been deleted since."""
    found = since(at, [policy_id]).get(policy_id)
    if found is None and not Policy.objects.filter(pk=policy_id).exists():
        # Its exceptions were deleted with it.
        found = PastExceptions(_recorded(organization, policy_id), _forbidden(organization.pk))
    return found.at(at) if found else ()


def _recorded(organization: Organization, policy_id: int) -> tuple[PolicyException, ...]:
    """A policy's exceptions, read from the history."""
    events = HistoryEvent.objects.filter(
        owner=organization.key,
        subject_type=HistoryEvent.SubjectType.POLICY,
        subject_id=policy_id,
        kind__in=(event_types.EXCEPTION_ADDED, event_types.EXCEPTION_ENDED),
    )
    rows: dict[int, PolicyException] = {}
    for event in events.order_by("pk"):
        details = event.details
        if event.kind == event_types.EXCEPTION_ENDED:
            if details["exception"] in rows:
                rows[details["exception"]].ended_at = event.at
            continue
        until = datetime.strptime(details["until"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        rows[details["exception"]] = PolicyException(endpoint=details["endpoint"], added_at=event.at, expires_at=until)
    return tuple(rows.values())


def _forbidden(organization_id: int) -> tuple[_Forbidden, ...]:
    """In chronological order, from the history: it also has the hosts that are no longer on the list."""
    owner = Organization.objects.values_list("key", flat=True).get(pk=organization_id)
    rows = HistoryEvent.objects.filter(owner=owner, kind__in=list(_FORBIDS)).order_by("pk")
    events = rows.values_list("at", "details", "kind")
    return tuple(_Forbidden(at, details["host"], _FORBIDS[kind]) for at, details, kind in events)
