"""The impact of attaching, detaching and replacing policies: which runs get another policy, and with what effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from policystore.policies import compiler
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from policystore.traffic.impact import rows
from policystore.traffic.impact.assignment import Assignment, current, policies, ruling_of
from policystore.traffic.impact.replay import Replay
from policystore.traffic.impact.run_bitmaps import WorkflowKey
from policystore.traffic.impact.window import Window, load_window


@dataclass(frozen=True, slots=True)
class Part:
    """Runs that go from one policy to another; None is no policy."""

    before: Policy | None
    after: Policy | None
    replay: Replay
    endpoints: rows.Endpoints
    freed: rows.Endpoints
    undetermined: rows.Endpoints

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
    added: Sequence[rows.TypeRow]
    removed: Sequence[rows.TypeRow]

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


def attachment(
    policy: Policy, *, add: Collection[Scope] = (), remove: Collection[Scope] = (), days: int
) -> ChangeImpact:
    """Replay attaching a policy to scopes, replacing the policies there, and detaching it from others."""
    window = load_window(policy.organization, days)
    now = current(policy.organization, window.runs)
    mine = {scope.key for scope in remove if now.holders.get(scope.key) == policy.pk}
    then = now.changed(add={scope.key: policy.pk for scope in add}, remove=mine)
    return ChangeImpact(
        window=window,
        parts=_parts(policy, window, now, then),
        added=rows.of_scopes(add, then, window),
        removed=rows.of_scopes(remove, now, window),
    )


def detachment(policy: Policy, *, days: int) -> ChangeImpact:
    """Replay detaching a policy from all scopes, as deleting it also does."""
    window = load_window(policy.organization, days)
    now = current(policy.organization, window.runs)
    return ChangeImpact(
        window=window,
        parts=_parts(policy, window, now, now.without(policy.pk)),
        added=[],
        removed=rows.of_attached(policy, now, window),
    )


def _parts(policy: Policy, window: Window, now: Assignment, then: Assignment) -> list[Part]:
    moved: defaultdict[tuple[int | None, int | None], set[WorkflowKey]] = defaultdict(set)
    for key in now.scopes:
        pair = now.policy_of(key), then.policy_of(key)
        if pair[0] != pair[1]:
            moved[pair].add(key)
    known = policies(policy.organization, [policy_id for pair in moved for policy_id in pair])
    rulings = {pk: ruling_of(known.get(pk) if pk else None) for pair in moved for pk in pair}
    never_allow = compiler.never_allow_of(policy.organization)
    parts = []
    for (before, after), keys in moved.items():
        replay = window.traffic.replay(keys, before=rulings[before], after=rulings[after])
        parts.append(
            Part(
                before=known.get(before) if before else None,
                after=known.get(after) if after else None,
                replay=replay,
                endpoints=rows.endpoints(replay.off_list_endpoints, never_allow),
                freed=rows.endpoints(replay.freed_endpoints, never_allow),
                undetermined=rows.endpoints(replay.undetermined_endpoints, never_allow),
            )
        )
    return sorted(parts, key=lambda part: part.replay.runs, reverse=True)
