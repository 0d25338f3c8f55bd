"""Policy as code: the store as a bundle, how a bundle differs from it, and what drifted since one was applied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies import compile_context, validate_bundle
from policystore.policies.models import (
    Attachment,
    EndpointSet,
    ManagedPolicy,
    NeverAllowHost,
    Policy,
    PolicyException,
    StagedVersion,
)
from policystore.policies.plans import HostChange, Plan, PolicyChange, SetChange
from policystore.policy_language.bundle import (
    NOTHING_STAGED,
    Bundle,
    BundledException,
    BundledHost,
    BundledPolicy,
    BundledSet,
    BundledStaged,
)
from policystore.policy_language.diff import DiffRow, side_by_side
from policystore.policy_language.scopes import Scope, overlap


@dataclass(frozen=True, slots=True)
class Drift:
    """How a policy that is managed as code differs from what was applied last."""

    managed: ManagedPolicy
    rows: list[DiffRow]
    added: list[Scope]
    removed: list[Scope]
    description_changed: bool

    @property
    def is_there(self) -> bool:
        """Whether anything differs."""
        return bool(self.rows or self.added or self.removed or self.description_changed)


def current(organization: Organization) -> Bundle:
    """Everything of an organization, as a bundle; canary scopes as far as they share jobs with their policy's."""
    scopes: defaultdict[int, list[Scope]] = defaultdict(list)
    attached = Attachment.objects.filter(organization=organization).values_list("policy_id", "scope_key")
    for policy_id, scope_key in attached.iterator():
        scopes[policy_id].append(Scope.from_key(scope_key))
    rows = Policy.objects.filter(organization=organization).order_by("name_key")
    excepted, staged = _open_exceptions(organization), _staged(organization)
    policies = tuple(
        BundledPolicy(
            row.name,
            row.text,
            row.description,
            tuple(sorted(scopes[row.pk])),
            tuple(excepted[row.pk]) if row.pk in excepted else None,
            _covered(staged.get(row.pk), scopes[row.pk]),
        )
        for row in rows.only("pk", "name", "text", "description").iterator()
    )
    sets = EndpointSet.objects.filter(organization=organization).order_by("name_key")
    return Bundle(
        organization.key,
        policies,
        tuple(BundledSet(*values) for values in sets.values_list("name", "text", "description")),
        _hosts(organization) or None,
    )


def _hosts(organization: Organization) -> tuple[BundledHost, ...]:
    rows = NeverAllowHost.objects.filter(organization=organization).values_list("host", "reason")
    return tuple(BundledHost(host, reason) for host, reason in sorted(rows))


def _open_exceptions(organization: Organization) -> dict[int, list[BundledException]]:
    found: defaultdict[int, list[BundledException]] = defaultdict(list)
    rows = PolicyException.objects.active().filter(organization=organization).select_related("policy")
    never_allow = compile_context.never_allow_of(organization)
    for row in rows.order_by("endpoint").iterator():
        is_idle = never_allow.refusing(row.endpoint) is not None or row.endpoint in row.policy.listed_endpoints
        told = BundledException(row.endpoint, row.owner, row.reason, row.expires_at, is_idle=is_idle)
        found[row.policy_id].append(told)
    return found


def _staged(organization: Organization) -> dict[int, BundledStaged]:
    rows = StagedVersion.objects.filter(policy__organization=organization).prefetch_related("canaries")
    return {
        row.pk: BundledStaged(row.text, tuple(sorted(canary.scope for canary in row.canaries.all()))) for row in rows
    }


def _covered(staged: BundledStaged | None, held: Collection[Scope]) -> BundledStaged | None:
    if staged is None:
        return None
    canaries = (scope for scope in staged.canaries if any(overlap(scope, other) for other in held))
    return replace(staged, canaries=tuple(canaries))


def plan(bundle: Bundle, organization: Organization | None) -> Plan:
    """What applying the bundle would change; without an organization, everything is new.

    Raises BrokenBundle for policies with errors and for scopes of another organization.
    """
    validate_bundle.refuse_broken(bundle, organization)
    held = current(organization) if organization else Bundle(bundle.organization)
    now = timezone.now()
    before = {policy.name.lower(): policy for policy in held.policies}
    after = {policy.name.lower(): _still_open(policy, now) for policy in bundle.policies}
    holders = {scope.key: policy.name for policy in held.policies for scope in policy.scopes}
    changes = [
        PolicyChange(known, policy, _replaced(policy, holders))
        for key, policy in after.items()
        if (known := _as_far_as_kept(before.get(key), policy)) != policy
    ]
    gone = _managed_names(organization) - after.keys() if organization else set()
    changes += [PolicyChange(before[key], None, {}) for key in sorted(gone & before.keys())]
    unmanaged = tuple(policy.name for key, policy in before.items() if key not in after and key not in gone)
    return Plan(
        bundle.organization,
        tuple(changes),
        _set_changes(held, bundle),
        unmanaged,
        _host_changes(held, bundle),
        tuple((policy.name, one) for policy in bundle.policies for one in policy.exceptions or () if one.until <= now),
    )


def _still_open(policy: BundledPolicy, now: datetime) -> BundledPolicy:
    if policy.exceptions is None:
        return policy
    return replace(policy, exceptions=tuple(one for one in policy.exceptions if one.until > now))


def _as_far_as_kept(held: BundledPolicy | None, wanted: BundledPolicy) -> BundledPolicy | None:
    """The store's policy without what the bundle has no file of, and with nothing where the store has nothing."""
    if held is None:
        return None
    exceptions = _exceptions_as_kept(held.exceptions or (), wanted.exceptions)
    return replace(held, exceptions=exceptions, staged=_staged_as_kept(held.staged, wanted.staged))


def _exceptions_as_kept(
    held: tuple[BundledException, ...], wanted: tuple[BundledException, ...] | None
) -> tuple[BundledException, ...] | None:
    if wanted is None:
        return None
    # An idle one cannot stand in a bundle as long as it is idle, and is no reason to end it.
    return tuple(one for one in held if not one.is_idle or one in wanted)


def _staged_as_kept(held: BundledStaged | None, wanted: BundledStaged | None) -> BundledStaged | None:
    if wanted is None:
        return None
    # However the bundle writes that nothing is staged.
    return held or (wanted if wanted.is_nothing else NOTHING_STAGED)


def _host_changes(held: Bundle, bundle: Bundle) -> tuple[HostChange, ...]:
    if bundle.never_allow is None:
        return ()
    before, after = ({one.host: one for one in hosts or ()} for hosts in (held.never_allow, bundle.never_allow))
    pairs = [(before.get(host), after.get(host)) for host in sorted({*before, *after})]
    return tuple(HostChange(*pair) for pair in pairs if pair[0] != pair[1])


def drift_of(policy: Policy) -> Drift | None:
    """How a managed policy differs from what was applied; None for a policy that is not managed as code."""
    managed = ManagedPolicy.objects.filter(policy=policy).first()
    if managed is None:
        return None
    applied = {Scope.from_key(key) for key in managed.scopes}
    now = {attachment.scope for attachment in policy.attachments.all()}
    return Drift(
        managed=managed,
        rows=side_by_side(managed.text, policy.text),
        added=sorted(now - applied),
        removed=sorted(applied - now),
        description_changed=managed.description != policy.description,
    )


def _set_changes(held: Bundle, bundle: Bundle) -> tuple[SetChange, ...]:
    before = {endpoint_set.name.lower(): endpoint_set for endpoint_set in held.sets}
    pairs = ((before.get(wanted.name.lower()), wanted) for wanted in bundle.sets)
    return tuple(SetChange(known, wanted) for known, wanted in pairs if known != wanted)


def _replaced(policy: BundledPolicy, holders: Mapping[str, str]) -> dict[str, str]:
    return {
        scope.key: holders[scope.key]
        for scope in policy.scopes
        if scope.key in holders and holders[scope.key].lower() != policy.name.lower()
    }


def _managed_names(organization: Organization) -> set[str]:
    rows = ManagedPolicy.objects.filter(policy__organization=organization)
    return set(rows.values_list("policy__name_key", flat=True))
