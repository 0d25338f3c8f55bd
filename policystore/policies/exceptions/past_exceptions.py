"""Which exceptions held at a moment of the past: to judge jobs by what they were served."""

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
    """From a moment on, a host is never allowed, or may be again."""

    since: datetime
    host: str
    is_forbidden: bool


@dataclass(frozen=True, slots=True)
class Excepted:
    """The exceptions of a policy that were open at some time, and what its organization never allowed when."""

    rows: tuple[PolicyException, ...] = ()
    forbidden: tuple[_Forbidden, ...] = ()

    def at(self, moment: datetime) -> tuple[str, ...]:
        """The endpoints that whoever was served at this moment could reach beside the policy's list."""
        found = [row.endpoint for row in self.rows if row.added_at <= moment < row.over_at]
        if not found:
            return ()
        hosts = {one.host: one.is_forbidden for one in self.forbidden if one.since <= moment}
        never_allow = NeverAllow(tuple(Refused(host, "") for host, is_forbidden in hosts.items() if is_forbidden))
        return tuple(endpoint for endpoint in found if never_allow.refusing(endpoint) is None)


NOTHING = Excepted()


def since(moment: datetime, policy_ids: Iterable[int]) -> dict[int, Excepted]:
    """For each of these policies that has any, the exceptions that were open at the moment or are younger."""
    rows = PolicyException.objects.filter(policy__in=policy_ids, expires_at__gt=moment)
    found: dict[int, list[PolicyException]] = {}
    for row in rows.filter(Q(ended_at__isnull=True) | Q(ended_at__gt=moment)).order_by("pk"):
        found.setdefault(row.policy_id, []).append(row)
    told = {pk: _forbidden(pk) for pk in {several[0].organization_id for several in found.values()}}
    return {pk: Excepted(tuple(several), told[several[0].organization_id]) for pk, several in found.items()}


def of_policy(organization: Organization, policy_id: int, *, at: datetime) -> tuple[str, ...]:
    """The endpoints that its exceptions let through at a moment, also where the policy is deleted by now."""
    found = since(at, [policy_id]).get(policy_id)
    if found is None and not Policy.objects.filter(pk=policy_id).exists():
        # It took its exceptions along.
        found = Excepted(_told(organization, policy_id), _forbidden(organization.pk))
    return found.at(at) if found else ()


def _told(organization: Organization, policy_id: int) -> tuple[PolicyException, ...]:
    """A policy's exceptions as the history tells them."""
    events = HistoryEvent.objects.filter(
        owner=organization.key,
        subject_type=HistoryEvent.SubjectType.POLICY,
        subject_id=policy_id,
        kind__in=(event_types.EXCEPTION_ADDED, event_types.EXCEPTION_ENDED),
    )
    rows: dict[int, PolicyException] = {}
    for event in events.order_by("pk"):
        told = event.details
        if event.kind == event_types.EXCEPTION_ENDED:
            if told["exception"] in rows:
                rows[told["exception"]].ended_at = event.at
            continue
        until = datetime.strptime(told["until"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        rows[told["exception"]] = PolicyException(endpoint=told["endpoint"], added_at=event.at, expires_at=until)
    return tuple(rows.values())


def _forbidden(organization_id: int) -> tuple[_Forbidden, ...]:
    """In the order in which it happened; what is on the list no more is known from the history alone."""
    owner = Organization.objects.values_list("key", flat=True).get(pk=organization_id)
    rows = HistoryEvent.objects.filter(owner=owner, kind__in=list(_FORBIDS)).order_by("pk")
    told = rows.values_list("at", "details", "kind")
    return tuple(_Forbidden(at, details["host"], _FORBIDS[kind]) for at, details, kind in told)
