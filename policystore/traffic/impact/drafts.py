"""The impact of a draft at the scopes of its policy, or at another scope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.models import Policy
from policystore.policy_language.exceptions import OpenException
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType
from policystore.traffic.impact import rows
from policystore.traffic.impact.assignment import Assignment, current, ruling_of
from policystore.traffic.impact.replay import NO_POLICY, Replay, unused
from policystore.traffic.impact.run_bitmaps import WorkflowKey
from policystore.traffic.impact.window import Window, load_window

# No policy has this id. It stands for a draft that is not a version of a policy.
DRAFT = 0
SCOPES_OFFERED = 50


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


def compiled(organization: Organization, text: str) -> Policy | None:
    """A text compiled as for runners, as an unsaved policy; None if it has errors."""
    with_rules = compiler.for_text(organization, text)
    document = with_rules.check(text).document
    if document is None:
        return None
    draft = Policy(organization=organization, name="draft")
    compiler.fill(draft, document=document, with_rules=with_rules)
    return draft


def replayed(draft: Policy, *, policy: Policy | None, days: int, over: Scope | None = None) -> DraftImpact:
    """Replay a draft as the policy's next version, or as if it were attached to the scope `over`.

    The policy's exceptions apply to its next version too.
    """
    draft.open_exceptions = policy.open_exceptions if policy else ""
    organization, listed = draft.organization, draft.listed_endpoints
    window = load_window(organization, days)
    now = current(organization, window.runs)
    is_attached = policy is not None and policy.attachment_count > 0
    would_be = now if over is None else now.changed(add={over.key: policy.pk if policy else DRAFT})
    keys = _keys(would_be, policy if is_attached else None, over)
    compared = policy if policy and keys and all(now.policy_of(key) == policy.pk for key in keys) else None
    replay = window.traffic.replay(
        keys,
        before=ruling_of(compared) if compared else NO_POLICY,
        after=ruling_of(draft),
    )
    never_allow = compiler.never_allow_of(organization)
    return DraftImpact(
        window=window,
        mode=draft.egress_policy,
        replay=replay,
        endpoints=rows.endpoints(replay.off_list_endpoints, never_allow),
        freed=rows.endpoints(replay.freed_endpoints, never_allow),
        undetermined=rows.endpoints(replay.undetermined_endpoints, never_allow),
        listed=len(listed),
        unused=unused(listed, replay.called),
        types=_types(would_be, policy if is_attached else None, over, window),
        is_attached=is_attached,
        over=over,
        compared=compared,
        offered=_offered(now, window),
        exceptions=draft.exceptions_now,
    )


def _keys(would_be: Assignment, policy: Policy | None, over: Scope | None) -> set[WorkflowKey]:
    if over is not None:
        return would_be.keys_at({over.key})
    if policy is not None:
        return {key for key in would_be.scopes if would_be.policy_of(key) == policy.pk}
    return set(would_be.scopes)


def _types(would_be: Assignment, policy: Policy | None, over: Scope | None, window: Window) -> list[rows.TypeRow]:
    if over is not None:
        return rows.of_scopes([over], would_be, window)
    return rows.of_attached(policy, would_be, window) if policy is not None else []


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
