"""What a draft that is being written would do where its policy applies, or where it is meant to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from policystore.inventory.models import Organization
from policystore.policies.compile import compiler
from policystore.policies.compile import context as compile_context
from policystore.policies.models import Policy
from policystore.policy_language.exceptions import OpenException
from policystore.policy_language.replay import NO_POLICY, Replay, unused
from policystore.policy_language.run_bitmaps import Place
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType
from policystore.traffic.impact import rows
from policystore.traffic.impact.precedence import Ladder, ladder, ruling_of
from policystore.traffic.impact.window import Window, window

# Nothing has this id, so that a draft without a policy is nobody's.
DRAFT = 0
SCOPES_OFFERED = 50


@dataclass(frozen=True, slots=True)
class DraftImpact:
    """A draft replayed.

    `compared` is the policy whose saved version the runs get now, if they all do. `over` is the scope at which the
    draft was supposed to be attached; None where it was replayed at its policy's scopes, or over all runs where it has
    none (`is_attached`). `excepted` are what it lets through beside its list, for a time.
    """

    window: Window
    mode: str
    replay: Replay
    endpoints: rows.Endpoints
    freed: rows.Endpoints
    undetermined: rows.Endpoints
    listed: int
    unused: Sequence[str]
    types: Sequence[rows.TypeRow]
    is_attached: bool
    over: Scope | None
    compared: Policy | None
    offered: Sequence[tuple[ScopeType, Sequence[tuple[Scope, int]]]]
    exceptions: Sequence[OpenException]

    @property
    def blocks(self) -> bool:
        """Whether the draft blocks, rather than audits."""
        return self.mode == Policy.Mode.BLOCK

    @property
    def compares_blocking(self) -> bool:
        """Whether the saved version blocks too, so that it matters which endpoints only the draft does."""
        return self.blocks and self.replay.before.blocks

    @property
    def is_shadowed(self) -> bool:
        """Whether there were runs at its scopes, all of which get a more specific policy."""
        return not self.replay.runs and any(row.shadowed_labels for row in self.types)


def compiled(organization: Organization, text: str) -> Policy | None:
    """A text as runners would get it, as a policy that is not saved; None where it has errors."""
    with_rules = compile_context.for_text(organization, text)
    document = with_rules.check(text).document
    if document is None:
        return None
    draft = Policy(organization=organization, name="draft")
    compiler.fill(draft, document=document, with_rules=with_rules)
    return draft


def replayed(draft: Policy, *, policy: Policy | None, days: int, over: Scope | None = None) -> DraftImpact:
    """Replay a draft as if it were the policy's next version, or attached to the scope `over`.

    The exceptions of the policy hold for its next version too.
    """
    draft.excepted = policy.excepted if policy else ""
    organization, listed = draft.organization, draft.listed_endpoints
    seen = window(organization, days)
    now = ladder(organization, seen.runs)
    is_attached = policy is not None and policy.attachment_count > 0
    would_be = now if over is None else now.changed(add={over.key: policy.pk if policy else DRAFT})
    places = _places(would_be, policy if is_attached else None, over)
    compared = policy if policy and places and all(now.policy_of(place) == policy.pk for place in places) else None
    replay = seen.traffic.replay(
        places,
        before=ruling_of(compared) if compared else NO_POLICY,
        after=ruling_of(draft),
    )
    never_allow = compile_context.never_allow_of(organization)
    return DraftImpact(
        window=seen,
        mode=draft.egress_policy,
        replay=replay,
        endpoints=rows.endpoints(replay.off_list_endpoints, never_allow),
        freed=rows.endpoints(replay.freed_endpoints, never_allow),
        undetermined=rows.endpoints(replay.undetermined_endpoints, never_allow),
        listed=len(listed),
        unused=unused(listed, replay.called),
        types=_types(would_be, policy if is_attached else None, over, seen),
        is_attached=is_attached,
        over=over,
        compared=compared,
        offered=_offered(now, seen),
        exceptions=draft.excepted_now,
    )


def _places(would_be: Ladder, policy: Policy | None, over: Scope | None) -> set[Place]:
    if over is not None:
        return would_be.places_at({over.key})
    if policy is not None:
        return {place for place in would_be.scopes if would_be.policy_of(place) == policy.pk}
    return set(would_be.scopes)


def _types(would_be: Ladder, policy: Policy | None, over: Scope | None, seen: Window) -> list[rows.TypeRow]:
    if over is not None:
        return rows.of_scopes([over], would_be, seen)
    return rows.of_attached(policy, would_be, seen) if policy is not None else []


def _offered(now: Ladder, seen: Window) -> list[tuple[ScopeType, list[tuple[Scope, int]]]]:
    """The scopes with most runs, of each type, at which a draft can be tried."""
    counted: Counter[str] = Counter()
    for place, keys in now.scopes.items():
        counted.update(dict.fromkeys(keys, seen.runs[place]))
    found = []
    for kind in PRECEDENCE:
        of_kind = Counter({key: runs for key, runs in counted.items() if key.startswith(f"{kind}:")})
        if of_kind:
            found.append((kind, [(Scope.from_key(key), runs) for key, runs in of_kind.most_common(SCOPES_OFFERED)]))
    return found
