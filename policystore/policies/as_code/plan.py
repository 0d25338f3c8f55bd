"""Plans what applying a bundle would change: endpoint sets, policies and never-allow hosts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from difflib import unified_diff
from typing import Any, Generic, TypeVar

from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies.as_code import folder
from policystore.policies.as_code import validate as validate_bundle
from policystore.policies.models import ManagedPolicy, Policy
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
from policystore.policy_language.endpoint_sets import keys_in
from policystore.policy_language.scopes import Scope

Item = TypeVar("Item", BundledPolicy, BundledSet, BundledHost)
_WithText = BundledPolicy | BundledSet | BundledStaged | None
_SIGNS = {"create": "+", "update": "~", "delete": "-", "release": "~"}


@dataclass(frozen=True, slots=True)
class Change(Generic[Item]):
    """A policy, endpoint set or never-allow host before and after; None where it is not there."""

    before: Item | None
    after: Item | None

    @property
    def item(self) -> Item:
        """What it becomes; if it is deleted, what it was."""
        item = self.after or self.before
        assert item is not None  # noqa: S101 a change has one side at least
        return item

    @property
    def verb(self) -> str:
        """`create`, `update` or `delete`."""
        return "delete" if self.after is None else "update" if self.before else "create"


@dataclass(frozen=True, slots=True)
class PolicyChange(Change[BundledPolicy]):
    """One policy before and after; `replaced` names the policies that lose scopes to it.

    `exceptions_kept` are open exceptions of the store that the bundle leaves as they are. `included` has the text of
    each endpoint set that the policy will include.
    """

    replaced: Mapping[str, str]
    exceptions_kept: tuple[BundledException, ...] = ()
    included: Mapping[str, str] = field(default_factory=dict)

    @property
    def scopes_added(self) -> list[Scope]:
        """The scopes that the policy gains."""
        return sorted(_scopes(self.after) - _scopes(self.before))

    @property
    def scopes_removed(self) -> list[Scope]:
        """The scopes that the policy loses."""
        return sorted(_scopes(self.before) - _scopes(self.after))

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


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes that applying a bundle would make; `unmanaged` are policies of the store that it does not concern.

    Endpoint sets that the bundle does not have stay as they are, and so does what it has no file of. `expired` are
    exceptions of the bundle that have run out, which is no difference. With `keep_missing`, policies that the bundle no
    longer has are kept, and are no longer managed. `reached` identifies all policies of the store, if endpoint sets or
    never-allow hosts change, which may change what any of them serves.
    """

    organization: str
    changes: tuple[PolicyChange, ...]
    set_changes: tuple[Change[BundledSet], ...]
    unmanaged: tuple[str, ...]
    host_changes: tuple[Change[BundledHost], ...] = ()
    expired: tuple[tuple[str, BundledException], ...] = ()
    keep_missing: bool = False
    reached: str = ""

    @property
    def verbs(self) -> list[str]:
        """The kind of each change: `create`, `update` or `delete`."""
        every: list[Change[Any]] = [*self.host_changes, *self.set_changes]
        kept = {"delete": "release"} if self.keep_missing else {}
        return [change.verb for change in every] + [kept.get(change.verb, change.verb) for change in self.changes]

    @property
    def is_empty(self) -> bool:
        """True if nothing would change."""
        return not self.verbs

    @property
    def digest(self) -> str:
        """Identifies exactly these changes and what they make runners get, as opposed to those of a later plan."""
        changes = [
            [
                _plain(change.before),
                _plain(change.after),
                dict(change.replaced),
                [str(one) for one in change.exceptions_kept],
                dict(change.included),
            ]
            for change in self.changes
        ]
        sets = [[asdict(change.before) if change.before else None, asdict(change.item)] for change in self.set_changes]
        hosts = [
            [change.verb, change.item.host, change.after.reason if change.after else ""] for change in self.host_changes
        ]
        more = [self.keep_missing, self.reached]
        written = json.dumps([self.organization, changes, sets, hosts, more], sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]


def _scopes(policy: BundledPolicy | None) -> set[Scope]:
    return set(policy.scopes) if policy else set()


def _exceptions(policy: BundledPolicy | None) -> set[BundledException]:
    return set(policy.exceptions or ()) if policy else set()


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


def plan(bundle: Bundle, organization: Organization | None, *, keep_missing: bool = False) -> Plan:
    """Plan the bundle; without an organization, everything is new. `keep_missing` is as for `apply`.

    Raises BrokenBundle for policies with errors and for scopes of another organization.
    """
    validate_bundle.refuse_broken(bundle, organization)
    held = folder.stored_bundle(organization) if organization else Bundle(bundle.organization)
    now = timezone.now()
    before = {policy.name.lower(): policy for policy in held.policies}
    after = {policy.name.lower(): _still_open(policy, now) for policy in bundle.policies}
    holders = {scope.key: policy.name for policy in held.policies for scope in policy.scopes}
    sets = {one.name.lower(): one.text for one in (*held.sets, *bundle.sets)}
    changes = [
        PolicyChange(known, policy, _replaced(policy, holders), _kept(before.get(key), policy), _included(policy, sets))
        for key, policy in after.items()
        if (known := _as_far_as_kept(before.get(key), policy)) != policy
    ]
    gone = _managed_names(organization) - after.keys() if organization else set()
    changes += [PolicyChange(before[key], None, {}) for key in sorted(gone & before.keys())]
    unmanaged = tuple(policy.name for key, policy in before.items() if key not in after and key not in gone)
    set_changes, host_changes = _set_changes(held, bundle), _host_changes(held, bundle)
    return Plan(
        bundle.organization,
        tuple(changes),
        set_changes,
        unmanaged,
        host_changes,
        tuple((policy.name, one) for policy in bundle.policies for one in policy.exceptions or () if one.until <= now),
        keep_missing,
        _identity_of_policies(organization) if organization and (set_changes or host_changes) else "",
    )


def _identity_of_policies(organization: Organization) -> str:
    columns = ("name_key", "version", "egress_policy", "attachment_count", "open_exceptions")
    rows = Policy.objects.filter(organization=organization).order_by("pk").values_list(*columns)
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()


def _kept(held: BundledPolicy | None, wanted: BundledPolicy) -> tuple[BundledException, ...]:
    open_ones = (held.exceptions or ()) if held else ()
    return tuple(
        one for one in open_ones if wanted.exceptions is None or (one.is_idle and one not in wanted.exceptions)
    )


def _included(policy: BundledPolicy, sets: Mapping[str, str]) -> dict[str, str]:
    keys = keys_in(policy.text) | keys_in(policy.staged.text if policy.staged else "")
    return {key: sets[key] for key in sorted(keys & sets.keys())}


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
    # A bundle cannot list an exception while it is idle; that is no reason to end it.
    return tuple(one for one in held if not one.is_idle or one in wanted)


def _staged_as_kept(held: BundledStaged | None, wanted: BundledStaged | None) -> BundledStaged | None:
    if wanted is None:
        return None
    # However the bundle writes that nothing is staged.
    return held or (wanted if wanted.is_nothing else NOTHING_STAGED)


def _host_changes(held: Bundle, bundle: Bundle) -> tuple[Change[BundledHost], ...]:
    if bundle.never_allow is None:
        return ()
    before, after = ({one.host: one for one in hosts or ()} for hosts in (held.never_allow, bundle.never_allow))
    pairs = [(before.get(host), after.get(host)) for host in sorted({*before, *after})]
    return tuple(Change(*pair) for pair in pairs if pair[0] != pair[1])


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


def _set_changes(held: Bundle, bundle: Bundle) -> tuple[Change[BundledSet], ...]:
    before = {endpoint_set.name.lower(): endpoint_set for endpoint_set in held.sets}
    pairs = ((before.get(wanted.name.lower()), wanted) for wanted in bundle.sets)
    return tuple(Change(known, wanted) for known, wanted in pairs if known != wanted)


def _replaced(policy: BundledPolicy, holders: Mapping[str, str]) -> dict[str, str]:
    return {
        scope.key: holders[scope.key]
        for scope in policy.scopes
        if scope.key in holders and holders[scope.key].lower() != policy.name.lower()
    }


def _managed_names(organization: Organization) -> set[str]:
    rows = ManagedPolicy.objects.filter(policy__organization=organization)
    return set(rows.values_list("policy__name_key", flat=True))


def lines(plan: Plan) -> Iterator[str]:
    """The changes one after the other, then their number."""
    for host_change in plan.host_changes:
        yield _host_change(host_change)
    if plan.host_changes:
        yield ""
    for set_change in plan.set_changes:
        yield from _set_change(set_change)
        yield ""
    for change in plan.changes:
        if plan.keep_missing and change.after is None:
            yield f"~ release policy {change.item.name}: it stays, but is no longer managed as code"
        else:
            yield from _change(change)
        yield ""
    for name, one in plan.expired:
        yield f"Expired, ignored: exception of {name}, {one}"
    if plan.unmanaged:
        yield f"Not managed as code, left unchanged: {', '.join(plan.unmanaged)}"
    yield _summary(plan)


def _change(change: PolicyChange) -> Iterator[str]:
    yield f"{_SIGNS[change.verb]} {change.verb} policy {change.item.name}"
    if change.before and change.after and change.before.name != change.after.name:
        yield f"    name: {change.before.name} → {change.after.name}"
    yield from _description(change)
    for scope in change.scopes_added:
        replaced = change.replaced.get(scope.key)
        yield f"    + {scope.key}" + (f" (replaces {replaced})" if replaced else "")
    for scope in change.scopes_removed:
        yield f"    - {scope.key}"
    yield from _diff(change.before, change.after)
    for one in change.exceptions_removed:
        yield f"    - exception {one}"
    for one in change.exceptions_added:
        yield f"    + exception {one}"
    for one in change.exceptions_kept:
        yield f"      exception {one} stays open"
    if change.staged:
        yield from _staged(*change.staged)


def _staged(before: BundledStaged, after: BundledStaged) -> Iterator[str]:
    if after.is_nothing:
        yield "    - staged version"
        return
    yield f"    {'~' if not before.is_nothing else '+'} staged version"
    yield from _diff(before, after)
    for scope in sorted(set(after.canaries) - set(before.canaries)):
        yield f"    + canary {scope.key}"
    for scope in sorted(set(before.canaries) - set(after.canaries)):
        yield f"    - canary {scope.key}"


def _host_change(change: Change[BundledHost]) -> str:
    reason = f" ({change.after.reason})" if change.after else ""
    return f"{_SIGNS[change.verb]} {change.verb} never-allow host {change.item.host}{reason}"


def _set_change(change: Change[BundledSet]) -> Iterator[str]:
    yield f"{_SIGNS[change.verb]} {change.verb} endpoint set {change.item.name}"
    yield from _description(change)
    yield from _diff(change.before, change.after)


def _description(change: PolicyChange | Change[BundledSet]) -> Iterator[str]:
    if change.after and change.after.description != (change.before.description if change.before else ""):
        yield f"    description: {change.after.description or '(none)'}"


def _diff(before: _WithText, after: _WithText) -> Iterator[str]:
    old, new = ((item.text if item else "").splitlines(keepends=True) for item in (before, after))
    for line in unified_diff(old, new, "store", "code", n=2):
        yield f"      {line}".rstrip("\n")


def _summary(plan: Plan) -> str:
    counts = {verb: plan.verbs.count(verb) for verb in _SIGNS}
    if plan.is_empty:
        return "Nothing to change."
    summary = ", ".join(f"{number} to {verb}" for verb, number in counts.items() if number)
    return f"{summary}. Apply exactly this with --plan {plan.digest}"
