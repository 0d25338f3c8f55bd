"""What attaching, detaching and replacing would do: which runs get another policy, and what that means for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from policystore.policies.compile import context as compile_context
from policystore.policies.models import Policy
from policystore.policy_language.replay import Replay
from policystore.policy_language.run_bitmaps import Place
from policystore.policy_language.scopes import Scope
from policystore.traffic.impact import rows
from policystore.traffic.impact.precedence import Ladder, ladder, policies, ruling_of
from policystore.traffic.impact.window import Window, window


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
        """Whether both policies block, so that it matters which endpoints only the new one does."""
        return self.replay.before.blocks and self.replay.after.blocks

    @property
    def stopped(self) -> int:
        """How many of the runs the new policy blocks."""
        return self.replay.off_list if self.replay.after.blocks else 0


@dataclass(frozen=True, slots=True)
class ChangeImpact:
    """A change of scopes replayed: its parts, most runs first; the scopes that are added and taken away, by type."""

    window: Window
    parts: Sequence[Part]
    added: Sequence[rows.TypeRow]
    removed: Sequence[rows.TypeRow]

    @property
    def runs(self) -> int:
        """How many runs get another policy."""
        return sum(part.replay.runs for part in self.parts)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was observed in any of the scopes."""
        return not any(row.scopes > row.quiet for row in (*self.added, *self.removed))

    @property
    def workflows(self) -> set[tuple[str, str]]:
        """The workflows of these."""
        return set().union(*(part.replay.workflows for part in self.parts))

    @property
    def stopped(self) -> int:
        """How many of them are blocked then."""
        return sum(part.stopped for part in self.parts)

    @property
    def stopped_workflows(self) -> set[tuple[str, str]]:
        """The workflows of those."""
        return set().union(*(part.replay.off_list_workflows for part in self.parts if part.stopped))

    @property
    def more(self) -> int:
        """How many are blocked then and are not now."""
        return sum(part.replay.more for part in self.parts)

    @property
    def fewer(self) -> int:
        """How many are blocked now and are not then."""
        return sum(part.replay.fewer for part in self.parts)


def attachment(
    policy: Policy, *, add: Collection[Scope] = (), remove: Collection[Scope] = (), days: int
) -> ChangeImpact:
    """Replay attaching a policy to more scopes, in place of what they hold, and taking it from others."""
    seen = window(policy.organization, days)
    now = ladder(policy.organization, seen.runs)
    mine = {scope.key for scope in remove if now.holders.get(scope.key) == policy.pk}
    then = now.changed(add={scope.key: policy.pk for scope in add}, remove=mine)
    return ChangeImpact(
        window=seen,
        parts=_parts(policy, seen, now, then),
        added=rows.of_scopes(add, then, seen),
        removed=rows.of_scopes(remove, now, seen),
    )


def detachment(policy: Policy, *, days: int) -> ChangeImpact:
    """Replay detaching a policy from everything, as deleting it does too."""
    seen = window(policy.organization, days)
    now = ladder(policy.organization, seen.runs)
    return ChangeImpact(
        window=seen,
        parts=_parts(policy, seen, now, now.without(policy.pk)),
        added=[],
        removed=rows.of_attached(policy, now, seen),
    )


def _parts(policy: Policy, seen: Window, now: Ladder, then: Ladder) -> list[Part]:
    moved: defaultdict[tuple[int | None, int | None], set[Place]] = defaultdict(set)
    for place in now.scopes:
        pair = now.policy_of(place), then.policy_of(place)
        if pair[0] != pair[1]:
            moved[pair].add(place)
    known = policies(policy.organization, [found for pair in moved for found in pair])
    rulings = {found: ruling_of(known.get(found) if found else None) for pair in moved for found in pair}
    never_allow = compile_context.never_allow_of(policy.organization)
    parts = []
    for (before, after), places in moved.items():
        replay = seen.traffic.replay(places, before=rulings[before], after=rulings[after])
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
