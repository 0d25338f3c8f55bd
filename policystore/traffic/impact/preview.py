"""The impact of a change before it is saved: of a draft, and of attaching, detaching and replacing policies.

Each previews which runs would get another policy, and what that would do to their calls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Count

from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.endpoint_parser import unlistable
from policystore.policy_language.exceptions import OpenException
from policystore.policy_language.never_allow import NeverAllow
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType, candidate_keys
from policystore.traffic.impact.bitmap_store import Window, load_window
from policystore.traffic.impact.replay import DETAILED, NO_POLICY, CalledEndpoint, Replay, Ruling, unused
from policystore.traffic.impact.run_bitmaps import WorkflowKey
from policystore.traffic.verdicts import allow_list_of

SCOPES_PER_QUERY = 5000
# Labels of scopes that a row names.
NAMED = 8
# No policy has this id. It stands for a draft that is not a version of a policy.
DRAFT = 0
SCOPES_OFFERED = 50


@dataclass(frozen=True, slots=True)
class Assignment:
    """The scopes of each workflow key, most specific first, and the policy ids of the scopes that hold one."""

    scopes: Mapping[WorkflowKey, tuple[str, ...]]
    holders: Mapping[str, int]

    def changed(self, *, add: Mapping[str, int], remove: Collection[str] = ()) -> Assignment:
        """The assignment with policies attached to more scopes and removed from others."""
        kept = {scope: policy for scope, policy in self.holders.items() if scope not in remove}
        return Assignment(self.scopes, {**kept, **add})

    def held_by(self, policy_id: int) -> set[str]:
        """The scopes that hold this policy."""
        return {scope for scope, holder in self.holders.items() if holder == policy_id}

    def scope_of(self, key: WorkflowKey) -> str:
        """The scope whose policy the key's runs get, or empty if they get none."""
        return next((scope for scope in self.scopes[key] if scope in self.holders), "")

    def policy_of(self, key: WorkflowKey) -> int | None:
        """The id of the policy that the key's runs get."""
        return self.holders.get(self.scope_of(key))

    def keys_at(self, scopes: Collection[str]) -> set[WorkflowKey]:
        """The keys whose runs get the policy of one of these scopes."""
        return {key for key in self.scopes if self.scope_of(key) in scopes}

    def observed(self, scopes: Collection[str]) -> set[str]:
        """Those of the scopes that have runs, whatever policy the runs get."""
        return {scope for candidates in self.scopes.values() for scope in candidates if scope in scopes}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints that most runs called, each with why no policy can list it or an empty text, and how many more."""

    rows: Sequence[tuple[CalledEndpoint, str]]
    more: int


@dataclass(frozen=True, slots=True)
class TypeRow:
    """The scopes of one type: how many there are, and how many runs get their policy.

    A scope is `quiet` if nothing was observed there, and `shadowed` if all its runs get a more specific policy. At most
    NAMED labels of either kind are included.
    """

    type: ScopeType
    scopes: int
    runs: int
    quiet: int
    quiet_labels: Sequence[str]
    shadowed_labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class DraftImpact:
    """A draft replayed.

    `compared` is the policy whose saved version all the runs get now, or None. `over` is the scope at which the draft
    was tried; None if it was replayed at its policy's scopes (`is_attached`), or over all runs if it has none.
    `exceptions` are the temporary exceptions that it allows in addition to its list.
    """

    window: Window
    mode: str
    replay: Replay
    endpoints: Endpoints
    freed: Endpoints
    undetermined: Endpoints
    listed: int
    unused: Sequence[str]
    types: Sequence[TypeRow]
    is_attached: bool
    over: Scope | None
    compared: Policy | None
    offered: Sequence[tuple[ScopeType, Sequence[tuple[Scope, int]]]]
    exceptions: Sequence[OpenException]

    @property
    def blocks(self) -> bool:
        """True in block mode, false in audit mode."""
        return self.mode == Policy.Mode.BLOCK

    @property
    def compares_blocking(self) -> bool:
        """True if the saved version blocks too, so that it matters which endpoints only the draft blocks."""
        return self.blocks and self.replay.before.blocks

    @property
    def is_shadowed(self) -> bool:
        """True if there were runs at its scopes, but all get a more specific policy."""
        return not self.replay.runs and any(row.shadowed_labels for row in self.types)


@dataclass(frozen=True, slots=True)
class Part:
    """Runs that go from one policy to another; None is no policy."""

    before: Policy | None
    after: Policy | None
    replay: Replay
    endpoints: Endpoints
    freed: Endpoints
    undetermined: Endpoints

    @property
    def compares_blocking(self) -> bool:
        """True if both policies block, so that it matters which endpoints only the new one blocks."""
        return self.replay.before.blocks and self.replay.after.blocks

    @property
    def stopped(self) -> int:
        """The number of runs that the new policy blocks."""
        return self.replay.off_list if self.replay.after.blocks else 0


@dataclass(frozen=True, slots=True)
class ChangeImpact:
    """A change of scopes replayed: its parts, most runs first, and the added and removed scopes by type."""

    window: Window
    parts: Sequence[Part]
    added: Sequence[TypeRow]
    removed: Sequence[TypeRow]

    @property
    def runs(self) -> int:
        """The number of runs that get another policy."""
        return sum(part.replay.runs for part in self.parts)

    @property
    def is_quiet(self) -> bool:
        """True if nothing was observed in any of the scopes."""
        return not any(row.scopes > row.quiet for row in (*self.added, *self.removed))

    @property
    def workflows(self) -> set[tuple[str, str]]:
        """The workflows of the runs that get another policy."""
        return set().union(*(part.replay.workflows for part in self.parts))

    @property
    def stopped(self) -> int:
        """The number of those runs that would be blocked."""
        return sum(part.stopped for part in self.parts)

    @property
    def stopped_workflows(self) -> set[tuple[str, str]]:
        """The workflows of the runs that would be blocked."""
        return set().union(*(part.replay.off_list_workflows for part in self.parts if part.stopped))

    @property
    def more(self) -> int:
        """The number of runs that would be blocked and are not blocked now."""
        return sum(part.replay.more for part in self.parts)

    @property
    def fewer(self) -> int:
        """The number of runs that are blocked now and would not be."""
        return sum(part.replay.fewer for part in self.parts)


def compile_draft(organization: Organization, text: str) -> Policy | None:
    """A text compiled as for runners, as an unsaved policy; None if it has errors."""
    with_rules = compiler.for_text(organization, text)
    document = with_rules.check(text).document
    if document is None:
        return None
    draft = Policy(organization=organization, name="draft")
    compiler.fill(draft, document=document, with_rules=with_rules)
    return draft


def replay_draft(draft: Policy, *, policy: Policy | None, days: int, over: Scope | None = None) -> DraftImpact:
    """Replay a draft as the policy's next version, or as if it were attached to the scope `over`.

    The policy's exceptions apply to its next version too.
    """
    draft.open_exceptions = policy.open_exceptions if policy else ""
    organization, listed = draft.organization, draft.listed_endpoints
    window = load_window(organization, days)
    now = _current_assignment(organization, window.runs)
    attached = policy if policy is not None and policy.attachment_count > 0 else None
    would_be = now if over is None else now.changed(add={over.key: policy.pk if policy else DRAFT})
    keys = _keys(would_be, attached, over)
    compared = policy if policy and keys and all(now.policy_of(key) == policy.pk for key in keys) else None
    replay = window.traffic.replay(keys, before=_ruling_of(compared), after=_ruling_of(draft))
    return DraftImpact(
        window=window,
        mode=draft.egress_policy,
        replay=replay,
        **_shown(replay, compiler.never_allow_of(organization)),
        listed=len(listed),
        unused=unused(listed, replay.called),
        types=_types(would_be, attached, over, window),
        is_attached=attached is not None,
        over=over,
        compared=compared,
        offered=_offered(now, window),
        exceptions=draft.exceptions_now,
    )


def _keys(would_be: Assignment, attached: Policy | None, over: Scope | None) -> set[WorkflowKey]:
    if over is not None:
        return would_be.keys_at({over.key})
    return set(would_be.scopes) if attached is None else would_be.keys_at(would_be.held_by(attached.pk))


def _types(would_be: Assignment, attached: Policy | None, over: Scope | None, window: Window) -> list[TypeRow]:
    if over is not None:
        return _rows_of_scopes([over], would_be, window)
    return [] if attached is None else _rows_of_attached(attached, would_be, window)


def _offered(now: Assignment, window: Window) -> list[tuple[ScopeType, list[tuple[Scope, int]]]]:
    """For each type, the scopes with the most runs, to try the draft at."""
    counted: Counter[str] = Counter()
    for key, scopes in now.scopes.items():
        counted.update(dict.fromkeys(scopes, window.runs[key]))
    offered = []
    for kind in PRECEDENCE:
        of_kind = Counter({scope: runs for scope, runs in counted.items() if scope.startswith(f"{kind}:")})
        if of_kind:
            top = of_kind.most_common(SCOPES_OFFERED)
            offered.append((kind, [(Scope.from_key(scope), runs) for scope, runs in top]))
    return offered


def attachment(
    policy: Policy, *, add: Collection[Scope] = (), remove: Collection[Scope] = (), days: int
) -> ChangeImpact:
    """Replay attaching a policy to scopes, replacing the policies there, and detaching it from others."""
    window = load_window(policy.organization, days)
    now = _current_assignment(policy.organization, window.runs)
    mine = {scope.key for scope in remove if now.holders.get(scope.key) == policy.pk}
    then = now.changed(add={scope.key: policy.pk for scope in add}, remove=mine)
    return ChangeImpact(
        window=window,
        parts=_parts(policy, window, now, then),
        added=_rows_of_scopes(add, then, window),
        removed=_rows_of_scopes(remove, now, window),
    )


def detachment(policy: Policy, *, days: int) -> ChangeImpact:
    """Replay detaching a policy from all scopes, as deleting it also does."""
    window = load_window(policy.organization, days)
    now = _current_assignment(policy.organization, window.runs)
    return ChangeImpact(
        window=window,
        parts=_parts(policy, window, now, now.changed(add={}, remove=now.held_by(policy.pk))),
        added=[],
        removed=_rows_of_attached(policy, now, window),
    )


def _parts(policy: Policy, window: Window, now: Assignment, then: Assignment) -> list[Part]:
    moved: defaultdict[tuple[int | None, int | None], set[WorkflowKey]] = defaultdict(set)
    for key in now.scopes:
        pair = now.policy_of(key), then.policy_of(key)
        if pair[0] != pair[1]:
            moved[pair].add(key)
    known = _policies(policy.organization, [policy_id for pair in moved for policy_id in pair])
    rulings = {policy_id: _ruling_of(known.get(policy_id)) for pair in moved for policy_id in pair}
    never_allow = compiler.never_allow_of(policy.organization)
    parts = []
    for (before, after), keys in moved.items():
        replay = window.traffic.replay(keys, before=rulings[before], after=rulings[after])
        parts.append(Part(known.get(before), known.get(after), replay, **_shown(replay, never_allow)))
    return sorted(parts, key=lambda part: part.replay.runs, reverse=True)


def _shown(replay: Replay, never_allow: NeverAllow) -> dict[str, Endpoints]:
    """The endpoints of a replay that pages show, given the hosts that the organization never allows."""
    return {
        "endpoints": _endpoints(replay.off_list_endpoints, never_allow),
        "freed": _endpoints(replay.freed_endpoints, never_allow),
        "undetermined": _endpoints(replay.undetermined_endpoints, never_allow),
    }


def _endpoints(called: Sequence[CalledEndpoint], never_allow: NeverAllow) -> Endpoints:
    rows = [(endpoint, _refusal(endpoint.text, never_allow)) for endpoint in called[:DETAILED]]
    return Endpoints(rows, max(len(called) - DETAILED, 0))


def _refusal(endpoint: str, never_allow: NeverAllow) -> str:
    if problem := unlistable(endpoint):
        return problem
    refused = never_allow.refusing(endpoint)
    return f"{refused.host} is never allowed: {refused.reason}" if refused else ""


def _rows_of_attached(policy: Policy, assignment: Assignment, window: Window) -> list[TypeRow]:
    """A row for each type of scope that the policy is attached to, most specific first."""
    attached = Attachment.objects.filter(policy=policy, organization_id=policy.organization_id).order_by("scope_key")
    counted = dict(attached.order_by().values_list("scope_type").annotate(number=Count("pk")))
    observed = assignment.held_by(policy.pk)
    silent = attached.exclude(scope_key__in=observed)
    rows = []
    for kind in PRECEDENCE:
        if kind in counted:
            labels = [attachment.scope.label for attachment in silent.filter(scope_type=kind)[:NAMED]]
            rows.append(_type_row(kind, counted[kind], observed, assignment, window, labels))
    return rows


def _rows_of_scopes(scopes: Collection[Scope], assignment: Assignment, window: Window) -> list[TypeRow]:
    """A row for each type of these scopes, which the policy may not be attached to, most specific first."""
    observed = assignment.observed({scope.key for scope in scopes})
    rows = []
    for kind in PRECEDENCE:
        of_kind = [scope for scope in scopes if scope.type == kind]
        silent = sorted(scope.label for scope in of_kind if scope.key not in observed)
        if of_kind:
            rows.append(_type_row(kind, len(of_kind), observed, assignment, window, silent[:NAMED]))
    return rows


def _type_row(
    kind: ScopeType, scopes: int, observed: set[str], assignment: Assignment, window: Window, silent: Sequence[str]
) -> TypeRow:
    of_kind = {scope for scope in observed if scope.startswith(f"{kind}:")}
    keys = assignment.keys_at(of_kind)
    shadowed = of_kind - {assignment.scope_of(key) for key in keys}
    return TypeRow(
        type=kind,
        scopes=scopes,
        runs=sum(window.runs[key] for key in keys),
        quiet=scopes - len(of_kind),
        quiet_labels=silent,
        shadowed_labels=sorted(Scope.from_key(scope).label for scope in shadowed)[:NAMED],
    )


def _current_assignment(organization: Organization, keys: Iterable[WorkflowKey]) -> Assignment:
    """The assignment by the current attachments."""
    scopes = {
        key: tuple(scope for scope in candidate_keys(organization.key, *key) if scope) for key in sorted(set(keys))
    }
    candidates = sorted({scope for of_key in scopes.values() for scope in of_key})
    holders: dict[str, int] = {}
    for start in range(0, len(candidates), SCOPES_PER_QUERY):
        part = candidates[start : start + SCOPES_PER_QUERY]
        rows = Attachment.objects.filter(organization=organization, scope_key__in=part)
        holders.update(rows.order_by().values_list("scope_key", "policy_id"))
    return Assignment(scopes, holders)


def _policies(organization: Organization, ids: Iterable[int | None]) -> dict[int | None, Policy]:
    """The organization's policies with these ids, by id."""
    rows = Policy.objects.filter(organization=organization, pk__in={pk for pk in ids if pk is not None})
    return {policy.pk: policy for policy in rows.defer("text", "search_text")}


def _ruling_of(policy: Policy | None) -> Ruling:
    """The ruling for runs that get this policy, or none."""
    if policy is None:
        return NO_POLICY
    return Ruling.of(policy.egress_policy, allow_list_of(policy.served_reply))
