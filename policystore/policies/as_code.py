"""Policy as code: the store as a bundle, how a bundle differs from it, and what drifted since one was applied."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import unified_diff

from policystore.documents.bundle import Bundle, BundledPolicy, BundledSet
from policystore.documents.diff import DiffRow, side_by_side
from policystore.documents.scopes import Scope
from policystore.inventory.models import Organization
from policystore.policies import bundle_checks
from policystore.policies.models import Attachment, EndpointSet, ManagedPolicy, Policy


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
    """What applying a bundle would change; `unmanaged` are policies of the store that it does not concern.

    Endpoint sets that the bundle does not have stay as they are.
    """

    organization: str
    changes: tuple[PolicyChange, ...]
    set_changes: tuple[SetChange, ...]
    unmanaged: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not self.changes and not self.set_changes

    @property
    def digest(self) -> str:
        """Names exactly these changes: a plan that was read can be told from one that came to be since."""
        told = [[_plain(change.before), _plain(change.after), dict(change.replaced)] for change in self.changes]
        sets = [[asdict(change.before) if change.before else None, asdict(change.after)] for change in self.set_changes]
        return hashlib.sha256(json.dumps([self.organization, told, sets], sort_keys=True).encode()).hexdigest()[:16]


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
    """Everything of an organization, as a bundle."""
    scopes: defaultdict[int, list[Scope]] = defaultdict(list)
    attached = Attachment.objects.filter(organization=organization).values_list("policy_id", "scope_key")
    for policy_id, scope_key in attached.iterator():
        scopes[policy_id].append(Scope.from_key(scope_key))
    rows = Policy.objects.filter(organization=organization).order_by("name_key")
    policies = tuple(
        BundledPolicy(row.name, row.text, row.description, tuple(sorted(scopes[row.pk])))
        for row in rows.only("pk", "name", "text", "description").iterator()
    )
    sets = EndpointSet.objects.filter(organization=organization).order_by("name_key")
    return Bundle(
        organization.key,
        policies,
        tuple(BundledSet(*values) for values in sets.values_list("name", "text", "description")),
    )


def plan(bundle: Bundle, organization: Organization | None) -> Plan:
    """What applying the bundle would change; without an organization, everything is new.

    Raises BrokenBundle for policies with errors and for scopes of another organization.
    """
    bundle_checks.refuse_broken(bundle, organization)
    held = current(organization) if organization else Bundle(bundle.organization)
    before = {policy.name.lower(): policy for policy in held.policies}
    after = {policy.name.lower(): policy for policy in bundle.policies}
    holders = {scope.key: policy.name for policy in held.policies for scope in policy.scopes}
    changes = [
        PolicyChange(before.get(key), policy, _replaced(policy, holders))
        for key, policy in after.items()
        if before.get(key) != policy
    ]
    gone = _managed_names(organization) - after.keys() if organization else set()
    changes += [PolicyChange(before[key], None, {}) for key in sorted(gone & before.keys())]
    unmanaged = tuple(policy.name for key, policy in before.items() if key not in after and key not in gone)
    return Plan(bundle.organization, tuple(changes), _set_changes(held, bundle), unmanaged)


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


def _scopes(policy: BundledPolicy | None) -> set[Scope]:
    return set(policy.scopes) if policy else set()


def _diff(before: BundledPolicy | BundledSet | None, after: BundledPolicy | BundledSet | None) -> list[str]:
    old, new = (item.text.splitlines(keepends=True) if item else [] for item in (before, after))
    return [line.rstrip("\n") for line in unified_diff(old, new, "store", "code", n=2)]


def _plain(policy: BundledPolicy | None) -> object:
    return {**asdict(policy), "scopes": [scope.key for scope in policy.scopes]} if policy else None
