"""Queries for break glass."""

from __future__ import annotations

from django.db.models import Count, Q, QuerySet

from policystore.inventory.models import Organization
from policystore.policies.models import Attachment, BreakGlass, Policy
from policystore.policy_language.scopes import Scope, ScopeType

LATEST_READ = 20


def active(organization: Organization) -> QuerySet[BreakGlass]:
    """Active break glasses, ordered by when they end."""
    return BreakGlass.objects.active().filter(organization=organization).order_by("ends_at", "pk")


def earlier(organization: Organization) -> QuerySet[BreakGlass]:
    """Ended break glasses, newest first, even if the history does not record the end yet."""
    rows = BreakGlass.objects.filter(organization=organization)
    return rows.exclude(pk__in=BreakGlass.objects.active().values("pk")).order_by("-pk")


def touching(policy: Policy) -> list[BreakGlass]:
    """Those of the organization's latest that take or took effect on jobs of this policy, by where it is attached now;
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
