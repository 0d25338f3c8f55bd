"""Add exceptions (single endpoints that a policy allows for a limited time), and end them early or on expiry."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

from django.db import OperationalError, transaction
from django.db.models import Q
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Actor, Membership
from policystore.audit_log import event_types, history
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.approvals.commands import PolicyCommand, Prepared, any_blocks
from policystore.policies.core import actions as policies
from policystore.policies.errors import InvalidException, PolicyGone
from policystore.policies.models import Policy, PolicyException
from policystore.policy_language import exceptions as documents
from policystore.policy_language.endpoint_parser import MAX_ENTRIES
from policystore.policy_language.endpoint_sets import check_set
from policystore.policy_language.never_allow import NeverAllow, Refused

logger = logging.getLogger(__name__)

MOST_DAYS = 366
MOST_OPEN = 50
MAX_REASON, MAX_OWNER = 500, 255
EXPIRED_AT_ONCE = 100
# Whether each kind of event forbids its host or takes that back.
_FORBIDS: Mapping[str, bool] = {event_types.NEVER_ALLOW_ADDED: True, event_types.NEVER_ALLOW_REMOVED: False}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddException(PolicyCommand[PolicyException]):
    """Allow one more endpoint, until `expires_at`, for every job that gets the policy from now on.

    `owner` is the member of the organization who answers for it; if it is empty, the actor is. `apply`
    raises PolicyGone, and InvalidException for an endpoint that is invalid, never allowed or already listed, a reason
    that is missing or too long, a time that is past or more than MOST_DAYS away, and an owner who is not a member.
    """

    verb: ClassVar = "exception.add"
    label: ClassVar = "Add an exception"

    endpoint: str
    reason: str
    expires_at: datetime
    owner: str = ""

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> AddException:
        """Restore the command. Raises PolicyGone."""
        expires_at = datetime.fromisoformat(payload["expires_at"])
        return super(AddException, cls).from_json(organization, {**payload, "expires_at": expires_at})

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[PolicyException]:
        """Lock the policy and normalize the fields."""
        checked = self._checked(by=by, at=at)
        change = checked.change(checked.policy, expires_at=checked.expires_at.isoformat())
        return Prepared(change, any_blocks({checked.policy.pk}), partial(checked._write, by=by, at=at))

    def _checked(self, *, by: Actor, at: datetime) -> AddException:
        reason = _checked_reason(self.reason)
        # Whole seconds, so that the history has exactly the same time.
        expires_at = self.expires_at.replace(microsecond=0)
        if not at < expires_at <= at + timedelta(days=MOST_DAYS):
            raise InvalidException("expires_at", f"Choose a time in the future, at most {MOST_DAYS} days from now.")
        policy = policies.locked(self.policy)
        endpoint = _checked_endpoint(policy, self.endpoint, at=at)
        owner = _checked_owner(policy.organization, self.owner, by=by)
        return AddException(policy=policy, endpoint=endpoint, reason=reason, expires_at=expires_at, owner=owner)

    def _write(self, *, by: Actor, at: datetime) -> PolicyException:
        _settle_same(self.policy, self.endpoint, at=at)
        added = PolicyException.objects.create(
            policy=self.policy,
            organization=self.policy.organization,
            endpoint=self.endpoint,
            reason=self.reason,
            owner=self.owner,
            added_at=at,
            expires_at=self.expires_at,
        )
        _keep(self.policy.organization, [self.policy])
        _record(event_types.EXCEPTION_ADDED, added, by=by, at=at, reason=self.reason)
        return added


def end(*, exception: PolicyException, by: Actor, at: datetime | None = None) -> None:
    """Stop allowing the endpoint; does nothing if it has ended. It never waits for approval. Raises PolicyGone."""
    now = at or timezone.now()
    with transaction.atomic():
        current = _locked(exception)
        if current is not None:
            _end(current, by=by, at=now)
            _keep(current.policy.organization, [current.policy])


def record_expired(*, at: datetime | None = None) -> int:
    """Record up to EXPIRED_AT_ONCE expired exceptions in the history; returns how many.

    They ended at their expiry time; what is served does not depend on this.
    """
    now = at or timezone.now()
    due = PolicyException.objects.filter(ended_at__isnull=True, expires_at__lte=now).select_related("policy")
    found = list(due.order_by("expires_at", "pk")[:EXPIRED_AT_ONCE])
    for exception in found:
        try:
            end(exception=exception, by=SYSTEM, at=now)
        except PolicyGone:
            continue
        except OperationalError:
            raise
        except Exception:
            logger.exception("Cannot record that the exception %s has expired", exception)
    return len(found)


def follow_rules(organization: Organization) -> None:
    """Re-apply the never-allow hosts to the organization's exceptions, in the transaction that changed the hosts."""
    rows = PolicyException.objects.filter(organization=organization, ended_at__isnull=True)
    ids = sorted(set(rows.values_list("policy_id", flat=True)))
    for start in range(0, len(ids), compiler.POLICIES_AT_ONCE):
        policies_at_once = Policy.objects.filter(pk__in=ids[start : start + compiler.POLICIES_AT_ONCE])
        _keep(organization, list(policies_at_once.select_related("organization").order_by("pk")))


def _keep(organization: Organization, stored: Sequence[Policy]) -> None:
    """Store the open exceptions beside the policies' replies, without hosts that are never allowed."""
    never_allow = compiler.never_allow_of(organization)
    still_open: defaultdict[int, list[documents.OpenException]] = defaultdict(list)
    rows = PolicyException.objects.filter(policy__in=[policy.pk for policy in stored], ended_at__isnull=True)
    for policy_id, expires_at, endpoint in rows.order_by("pk").values_list("policy_id", "expires_at", "endpoint"):
        if never_allow.refusing(endpoint) is None:
            still_open[policy_id].append(documents.OpenException(expires_at, endpoint))
    before = {policy.pk: (policy.open_exceptions, policy.search_text) for policy in stored}
    for policy in stored:
        policy.open_exceptions = documents.encode(still_open[policy.pk])
    compiler.follow_exceptions(organization, stored)
    for policy in stored:
        if (policy.open_exceptions, policy.search_text) != before[policy.pk]:
            policy.save(update_fields=["open_exceptions", "search_text"])


def _locked(exception: PolicyException) -> PolicyException | None:
    policy = policies.locked(exception.policy)
    current = PolicyException.objects.filter(pk=exception.pk, policy=policy, ended_at__isnull=True).first()
    if current is not None:
        current.policy = policy
    return current


def _settle_same(policy: Policy, endpoint: str, *, at: datetime) -> None:
    """End expired exceptions for the same endpoint that were not recorded yet, so that it can be added again."""
    rows = PolicyException.objects.filter(policy=policy, endpoint=endpoint, ended_at__isnull=True, expires_at__lte=at)
    for old in rows:
        old.policy = policy
        _end(old, by=SYSTEM, at=at)


def _end(current: PolicyException, *, by: Actor, at: datetime) -> None:
    expired = current.expires_at <= at
    # An exception that expired ended at its expiry time, not when the worker noticed, and no person ended it.
    current.ended_at = current.expires_at if expired else at
    current.ended_by = SYSTEM.name if expired else by.name
    current.save(update_fields=["ended_at", "ended_by"])
    kind = event_types.EXCEPTION_EXPIRED if expired else event_types.EXCEPTION_ENDED
    _record(kind, current, by=SYSTEM if expired else by, at=at, reason="")


def _record(kind: str, exception: PolicyException, *, by: Actor, at: datetime, reason: str) -> None:
    details = {
        "exception": exception.pk,
        "endpoint": exception.endpoint,
        "owner": exception.owner,
        "until": f"{exception.expires_at:%Y-%m-%d %H:%M:%S} UTC",
        "why": exception.reason,
    }
    history.record_policy(kind, policy=exception.policy, by=by, at=at, reason=reason, details=details)


def _checked_endpoint(policy: Policy, text: str, *, at: datetime) -> str:
    checked = check_set(text, never_allow=compiler.never_allow_of(policy.organization))
    if checked.endpoints is None:
        problem = next(problem for problem in checked.problems if problem.severity == "error")
        raise InvalidException("endpoint", f"{problem.message} {problem.hint}".strip())
    if len(checked.endpoints) != 1:
        raise InvalidException(
            "endpoint", "Enter a single endpoint, for example github.com:443. Each endpoint needs its own exception."
        )
    [endpoint] = checked.endpoints
    _refuse_listed(policy, endpoint, at=at)
    return endpoint


def _refuse_listed(policy: Policy, endpoint: str, *, at: datetime) -> None:
    listed = policy.listed_endpoints
    active = list(PolicyException.objects.active(at).filter(policy=policy).values_list("endpoint", flat=True))
    if endpoint in listed:
        raise InvalidException("endpoint", f"{policy.name} already lists {endpoint}.")
    if endpoint in active:
        raise InvalidException("endpoint", f"{endpoint} already has an exception. End that one first.")
    host = endpoint.rpartition(":")[0]
    other = next((one for one in (*listed, *active) if "*" in host and one.rpartition(":")[0] == host), None)
    if other is not None:
        raise InvalidException("endpoint", f"{other} is already allowed, and runners use only one port of a wildcard.")
    if len(active) >= MOST_OPEN or len(listed) + len(active) >= MAX_ENTRIES:
        limits = f"{MOST_OPEN} exceptions and {MAX_ENTRIES:,} endpoints"
        raise InvalidException("endpoint", f"A policy can have at most {limits}. End another exception first.")


def _checked_reason(reason: str) -> str:
    reason = " ".join(reason.split())
    if not reason or len(reason) > MAX_REASON or not reason.isprintable():
        raise InvalidException("reason", f"Enter a reason of at most {MAX_REASON} printable characters.")
    return reason


def _checked_owner(organization: Organization, text: str, *, by: Actor) -> str:
    name = " ".join(text.split()).removeprefix("@")
    if not name or name == by.name:
        return by.name
    if by.kind == "code":
        # A folder restores a store that has no members yet.
        return name[:MAX_OWNER]
    members = Membership.objects.filter(organization=organization, user__username__iexact=name)
    found = members.values_list("user__username", flat=True).first()
    if found is None:
        raise InvalidException(
            "owner", f"“{name[:MAX_OWNER]}” is not a member of {organization.login}. Enter the login of a member."
        )
    return found


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


NO_PAST_EXCEPTIONS = PastExceptions()


def open_since(at_time: datetime, policy_ids: Iterable[int]) -> dict[int, PastExceptions]:
    """For each of these policies that has any, the exceptions that were open at this time or are newer."""
    rows = PolicyException.objects.filter(policy__in=policy_ids, expires_at__gt=at_time)
    found: dict[int, list[PolicyException]] = {}
    for row in rows.filter(Q(ended_at__isnull=True) | Q(ended_at__gt=at_time)).order_by("pk"):
        found.setdefault(row.policy_id, []).append(row)
    forbidden = {pk: _forbidden(pk) for pk in {several[0].organization_id for several in found.values()}}
    return {pk: PastExceptions(tuple(several), forbidden[several[0].organization_id]) for pk, several in found.items()}


def allowed_at(organization: Organization, policy_id: int, *, at: datetime) -> tuple[str, ...]:
    """The endpoints that its exceptions allowed at a time, even if the policy has been deleted since."""
    found = open_since(at, [policy_id]).get(policy_id)
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
