"""Plans what applying a bundle would change: endpoint sets, policies and never-allow hosts."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from difflib import unified_diff

from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies.as_code import validate as validate_bundle
from policystore.policies.compile import context as compile_context
from policystore.policies.models import (
    Attachment,
    EndpointSet,
    ManagedPolicy,
    NeverAllowHost,
    Policy,
    PolicyException,
    StagedVersion,
)
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
class PolicyChange:
    """One policy before and after; None where it is not there. `replaced` names the policies that lose scopes to it."""

    before: BundledPolicy | None
    after: BundledPolicy | None
    replaced: Mapping[str, str]

    @property
    def name(self) -> str:
        """The policy's name, the new one where its spelling changes."""
        known = self.after or self.before
        return known.name if known else ""

    @property
    def verb(self) -> str:
        """`create`, `update` or `delete`."""
        return "delete" if self.after is None else "update" if self.before else "create"

    @property
    def scopes_added(self) -> list[Scope]:
        """The scopes that the policy gains."""
        return sorted(_scopes(self.after) - _scopes(self.before))

    @property
    def scopes_removed(self) -> list[Scope]:
        """The scopes that the policy loses."""
        return sorted(_scopes(self.before) - _scopes(self.after))

    @property
    def diff(self) -> list[str]:
        """The lines of a unified diff of the texts, without line ends; empty where they are the same."""
        return _diff(self.before, self.after)

    @property
    def exceptions_added(self) -> list[BundledException]:
        """The exceptions that the policy gains; one whose owner, reason or end changes is another one."""
        return sorted(_exceptions(self.after) - _exceptions(self.before), key=str)

    @property
    def exceptions_removed(self) -> list[BundledException]:
        """The exceptions that end."""
        return sorted(_exceptions(self.before) - _exceptions(self.after), key=str) if self.after else []

    @property
    def staged(self) -> tuple[BundledStaged, BundledStaged] | None:
        """The staged version before and after; None if it stays."""
        known = self.before.staged if self.before else None
        before, after = known or NOTHING_STAGED, self.after.staged if self.after else None
        if after is None or before == after or (before.is_nothing and after.is_nothing):
            return None
        return before, after

    @property
    def staged_diff(self) -> list[str]:
        """The lines of a unified diff of the staged texts."""
        return _lines_of_diff(*(item.text for item in self.staged)) if self.staged else []


@dataclass(frozen=True, slots=True)
class HostChange:
    """One never-allow host before and after; None where it is not there."""

    before: BundledHost | None
    after: BundledHost | None

    @property
    def host(self) -> str:
        """The host or wildcard."""
        known = self.after or self.before
        return known.host if known else ""

    @property
    def verb(self) -> str:
        """`create`, `update` (of the reason) or `delete`."""
        return "delete" if self.after is None else "update" if self.before else "create"


@dataclass(frozen=True, slots=True)
class SetChange:
    """One endpoint set before and after; `before` is None where it is new."""

    before: BundledSet | None
    after: BundledSet

    @property
    def diff(self) -> list[str]:
        """The lines of a unified diff of the texts."""
        return _diff(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes that applying a bundle would make; `unmanaged` are policies of the store that it does not concern.

    Endpoint sets that the bundle does not have stay as they are, and so does what it has no file of. `expired` are
    exceptions of the bundle that have run out, which is no difference.
    """

    organization: str
    changes: tuple[PolicyChange, ...]
    set_changes: tuple[SetChange, ...]
    unmanaged: tuple[str, ...]
    host_changes: tuple[HostChange, ...] = ()
    expired: tuple[tuple[str, BundledException], ...] = ()

    @property
    def verbs(self) -> list[str]:
        """The kind of each change: `create`, `update` or `delete`."""
        of_hosts = [change.verb for change in self.host_changes]
        of_policies = [change.verb for change in self.changes]
        return [*of_hosts, *of_policies, *("update" if change.before else "create" for change in self.set_changes)]

    @property
    def is_empty(self) -> bool:
        """True if nothing would change."""
        return not self.verbs

    @property
    def digest(self) -> str:
        """Identifies exactly these changes, so that a plan that was reviewed can be distinguished from a later one."""
        changes = [[_plain(change.before), _plain(change.after), dict(change.replaced)] for change in self.changes]
        sets = [[asdict(change.before) if change.before else None, asdict(change.after)] for change in self.set_changes]
        hosts = [
            [change.verb, change.host, change.after.reason if change.after else ""] for change in self.host_changes
        ]
        written = json.dumps([self.organization, changes, sets, hosts], sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]


def _scopes(policy: BundledPolicy | None) -> set[Scope]:
    return set(policy.scopes) if policy else set()


def _exceptions(policy: BundledPolicy | None) -> set[BundledException]:
    return set(policy.exceptions or ()) if policy else set()


def _diff(before: BundledPolicy | BundledSet | None, after: BundledPolicy | BundledSet | None) -> list[str]:
    return _lines_of_diff(*(item.text if item else "" for item in (before, after)))


def _lines_of_diff(before: str, after: str) -> list[str]:
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    return [line.rstrip("\n") for line in unified_diff(old, new, "store", "code", n=2)]


def _plain(policy: BundledPolicy | None) -> object:
    if policy is None:
        return None
    staged = policy.staged
    return {
        "name": policy.name,
        "text": policy.text,
        "description": policy.description,
        "scopes": [scope.key for scope in policy.scopes],
        "exceptions": None if policy.exceptions is None else [str(one) for one in policy.exceptions],
        "staged": None if staged is None else [staged.text, [scope.key for scope in staged.canaries]],
    }


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
        """True if anything differs."""
        return bool(self.rows or self.added or self.removed or self.description_changed)


def current(organization: Organization) -> Bundle:
    """Everything of an organization, as a bundle; canary scopes as far as they share jobs with their policy's."""
    scopes: defaultdict[int, list[Scope]] = defaultdict(list)
    attached = Attachment.objects.filter(organization=organization).values_list("policy_id", "scope_key")
    for policy_id, scope_key in attached.iterator():
        scopes[policy_id].append(Scope.from_key(scope_key))
    rows = Policy.objects.filter(organization=organization).order_by("name_key")
    exceptions_by_policy, staged = _open_exceptions(organization), _staged(organization)
    policies = tuple(
        BundledPolicy(
            row.name,
            row.text,
            row.description,
            tuple(sorted(scopes[row.pk])),
            tuple(exceptions_by_policy[row.pk]) if row.pk in exceptions_by_policy else None,
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
        exception = BundledException(row.endpoint, row.owner, row.reason, row.expires_at, is_idle=is_idle)
        found[row.policy_id].append(exception)
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
    """Plan the bundle; without an organization, everything is new.

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
