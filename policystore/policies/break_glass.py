"""Break glass: serves audit in a scope for some hours, and ends that early or when its time is up.

Nothing may block this: people use it when a policy stops their work.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Actor
from policystore.audit_log import event_types, history
from policystore.inventory.models import Organization
from policystore.policies.errors import ForeignScope, InvalidBreakGlass
from policystore.policies.models import Attachment, BreakGlass, Policy
from policystore.policy_language.scopes import Scope, ScopeType

LEAST_HOURS, MOST_HOURS = 1, 72
MAX_REASON = 500
EXPIRED_AT_ONCE = 100
LATEST_READ = 20


def start(
    *, organization: Organization, scope: Scope, hours: int, reason: str, by: Actor, at: datetime | None = None
) -> BreakGlass:
    """Serve audit in the scope from now on, for so many hours; one that is open there already ends.

    Raises InvalidBreakGlass for hours out of bounds and for a reason that is missing or too long, and ForeignScope.
    """
    reason = _checked_reason(reason)
    if not LEAST_HOURS <= hours <= MOST_HOURS:
        raise InvalidBreakGlass("hours", f"Choose between {LEAST_HOURS} and {MOST_HOURS} hours.")
    if scope.owner != organization.key:
        raise ForeignScope(f"{scope.label} does not belong to {organization.login}.")
    # Whole seconds, so that the history has exactly the same times.
    now = (at or timezone.now()).replace(microsecond=0)
    with transaction.atomic():
        _end(BreakGlass.objects.filter(scope_key=scope.key), by=by, at=now, reason="Replaced by another one.")
        begun = BreakGlass(
            organization=organization,
            scope_key=scope.key,
            reason=reason,
            started_at=now,
            started_by=by.name,
            ends_at=now + timedelta(hours=hours),
        )
        _insert(begun)
        _record(event_types.BREAK_GLASS_STARTED, begun, by=by, at=now, reason=reason, scopes_added=[scope.key])
    return begun


def end(*, break_glass: BreakGlass, by: Actor, at: datetime | None = None) -> None:
    """Serve what policies say again; does nothing if it has already ended."""
    with transaction.atomic():
        _end(BreakGlass.objects.filter(pk=break_glass.pk), by=by, at=at or timezone.now())


def record_expired(*, at: datetime | None = None) -> int:
    """Record up to EXPIRED_AT_ONCE expired break glasses in the history; returns how many.

    They ended at their expiry time; what is served does not depend on this.
    """
    now = at or timezone.now()
    expired = BreakGlass.objects.filter(ended_at__isnull=True, ends_at__lte=now).order_by("ends_at")
    rows = list(expired[:EXPIRED_AT_ONCE])
    for row in rows:
        end(break_glass=row, by=SYSTEM, at=now)
    return len(rows)


def _end(rows: QuerySet[BreakGlass], *, by: Actor, at: datetime, reason: str = "") -> None:
    """End the one of these that is open, if any."""
    current = rows.select_for_update().filter(ended_at__isnull=True).first()
    if current is None:
        return
    expired = current.ends_at <= at
    # A break glass that expired ended at its time, not when the worker noticed, and no person ended it.
    current.ended_at = current.ends_at if expired else at
    current.ended_by = SYSTEM.name if expired else by.name
    current.save(update_fields=["ended_at", "ended_by"])
    actor = SYSTEM if expired else by
    why = "Its time was up." if expired else reason
    _record(event_types.BREAK_GLASS_ENDED, current, by=actor, at=at, reason=why, scopes_removed=[current.scope_key])


def _insert(begun: BreakGlass) -> None:
    try:
        with transaction.atomic():
            begun.save(force_insert=True)
    except IntegrityError as error:
        if not BreakGlass.objects.filter(scope_key=begun.scope_key, ended_at__isnull=True).exists():
            raise
        raise InvalidBreakGlass("name", "Break glass was just activated for this scope. Reload the page.") from error


def _record(kind: str, about: BreakGlass, *, by: Actor, at: datetime, **values: Any) -> None:
    organization = about.organization
    history.record(
        kind,
        organization=organization,
        subject=history.organization_subject(organization),
        by=by,
        at=at,
        payload={"scope": about.scope_key, "ends_at": about.ends_at},
        details={"break_glass": about.pk, "until": f"{about.ends_at:%Y-%m-%d %H:%M:%S} UTC", "why": about.reason},
        **values,
    )


def _checked_reason(reason: str) -> str:
    reason = " ".join(reason.split())
    if not reason:
        raise InvalidBreakGlass("reason", "Enter a reason. It appears in the history and in every notification.")
    if len(reason) > MAX_REASON:
        raise InvalidBreakGlass("reason", f"The reason is too long: {len(reason)} characters (maximum {MAX_REASON}).")
    if not reason.isprintable():
        raise InvalidBreakGlass("reason", "Remove the characters from the reason that cannot be printed.")
    return reason


def active(organization: Organization) -> QuerySet[BreakGlass]:
    """Active break glasses, ordered by when they end."""
    return BreakGlass.objects.active().filter(organization=organization).order_by("ends_at", "pk")


def earlier(organization: Organization) -> QuerySet[BreakGlass]:
    """Ended break glasses, newest first, even if the history does not record the end yet."""
    rows = BreakGlass.objects.filter(organization=organization)
    return rows.exclude(pk__in=BreakGlass.objects.active().values("pk")).order_by("-pk")


def touching(policy: Policy) -> list[BreakGlass]:
    """The organization's latest break glasses that affect or affected jobs of this policy, by where it is attached now;
    newest first."""
    latest = list(BreakGlass.objects.filter(organization=policy.organization).order_by("-pk")[:LATEST_READ])
    shared = {f"n{found.pk}": Count("pk", filter=_overlapping(found.scope)) for found in latest}
    counted = Attachment.objects.filter(policy=policy).aggregate(**shared) if shared else {}
    return [found for found in latest if counted[f"n{found.pk}"]]


def policies_in(scope: Scope) -> QuerySet[Policy]:
    """The policies that block and that jobs in the scope may get: what a break glass there would switch to audit."""
    attached = Attachment.objects.filter(_overlapping(scope), organization__key=scope.owner)
    return Policy.objects.filter(pk__in=attached.values("policy_id"), egress_policy=Policy.Mode.BLOCK)


def _overlapping(scope: Scope) -> Q:
    """Attachments on scopes that share jobs with this one; the same as `scopes.overlap`, for the database."""
    if scope.type == ScopeType.ORGANIZATION:
        return Q(pk__isnull=False)
    if scope.type == ScopeType.CLUSTER:
        return Q(scope_key=scope.key) | ~Q(scope_type=ScopeType.CLUSTER)
    wider = [Scope.for_organization(scope.owner).key, Scope.for_repository(scope.owner, scope.repository).key]
    within = Q(scope_key__in=[scope.key, *wider]) | Q(scope_type=ScopeType.CLUSTER)
    if scope.type == ScopeType.WORKFLOW:
        return within
    return within | Q(scope_key__startswith=f"{ScopeType.WORKFLOW}:{scope.owner}/{scope.repository}/")
