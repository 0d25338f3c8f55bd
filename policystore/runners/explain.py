"""Explains which policy applies to a job: the four levels, what is served, and what the action makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from policystore.inventory.models import Organization
from policystore.policies import break_glass
from policystore.policies.core import queries
from policystore.policies.models import BreakGlass, CanaryScope, Policy
from policystore.policy_language.action_inputs import Inputs, Merged, merge
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.lint import remarks
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType, candidate_keys
from policystore.runners.fetch import handler
from policystore.runners.fetch.query import ServedPolicy, UnservablePolicy, policy_by_name, policy_for_job


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its runner would name it; a name is empty if the runner would not send it."""

    repository: str
    workflow: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Level:
    """One of the four levels: its scope (None if the job does not name it) and the policy attached there, if any."""

    type: ScopeType
    scope: Scope | None
    policy: Policy | None
    applies: bool
    break_glass: BreakGlass | None = None
    is_canary: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a job gets and why; `body` is the fetch's reply byte for byte, `merged` what the action makes of it."""

    levels: tuple[Level, ...]
    served: ServedPolicy
    status: int
    body: str
    merged: Merged
    endpoint: str = ""

    @property
    def remarks(self) -> list[str]:
        """Sentences on entries of the list that do something other than they seem to."""
        merged = self.merged
        telemetry = not merged.disable_telemetry
        return remarks(merged.allowed_endpoints, egress_policy=merged.egress_policy, telemetry=telemetry)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on a call to `endpoint`; None if there is no endpoint."""
        if not self.endpoint:
            return None
        allowed = AllowList.from_entries(self.merged.allowed_endpoints, telemetry=not self.merged.disable_telemetry)
        if self.merged.egress_policy != "block" or allowed.gives_up:
            return Verdict.ALLOWED
        return allowed.verdict_of(self.endpoint)

    @property
    def shadowed(self) -> list[Level]:
        """Less specific levels whose policy does not apply because another one does."""
        return [level for level in self.levels if level.policy is not None and not level.applies]

    @property
    def break_glass(self) -> BreakGlass | None:
        """The break glass that turns the policy's block into audit; of several, the one that lasts longest."""
        active = [level.break_glass for level in self.levels if level.break_glass is not None]
        return max(active, key=lambda break_glass: break_glass.ends_at) if active and self.served.break_glass else None

    @property
    def why(self) -> str:
        """One sentence on which level decides."""
        winner = next((level for level in self.levels if level.applies), None)
        if winner is None or winner.scope is None:
            return "No level has a policy, so the store answers 404 and the job runs in audit mode."
        if winner.type == ScopeType.WORKFLOW:
            return f"{self.served.policy_name} is attached to the workflow itself, the most specific level."
        return f"{self.served.policy_name} is attached to the {winner.type}; nothing more specific has a policy."


def explain(organization: Organization, job: Job, inputs: Inputs, *, endpoint: str = "") -> Explanation:
    """Resolve the job with the fetch's own SQL and explain the result, with the verdict on a call to `endpoint`.

    Raises DatabaseError, as the fetch's SQL does.
    """
    served = policy_for_job(organization.key, job.repository, job.workflow, job.cluster)
    reply = handler.reply_of(served)
    by_name = policy_by_name(organization.key, inputs.policy, job.repository, job.workflow)
    bodies = {"policy_store": served.reply, "policy": by_name.reply, "workflow": ""}
    body = bodies[inputs.asks]
    try:
        merged = merge(inputs, json.loads(body) if body else None)
    except (ValueError, TypeError, KeyError) as error:
        raise UnservablePolicy("A reply was changed in the database; run `manage.py verify_history`.") from error
    return Explanation(
        levels=_levels(organization, job, served),
        served=served,
        status=reply.status,
        body=reply.body.decode(),
        merged=merged,
        endpoint=endpoint,
    )


def _levels(organization: Organization, job: Job, served: ServedPolicy) -> tuple[Level, ...]:
    keys = candidate_keys(organization.key, job.repository, job.workflow, job.cluster)
    holders = queries.holders(organization, [key for key in keys if key])
    active = break_glass.active(organization).filter(scope_key__in=keys)
    break_glass_of = {break_glass.scope_key: break_glass for break_glass in active}
    canaries = set(
        CanaryScope.objects.filter(staged=served.policy_id, scope_key__in=keys).values_list("scope_key", flat=True)
    )
    return tuple(
        Level(
            type=scope_type,
            scope=Scope.from_key(key) if key else None,
            policy=holders[key].policy if key in holders else None,
            applies=bool(key) and key == served.scope_key,
            break_glass=break_glass_of.get(key),
            is_canary=key in canaries,
        )
        for scope_type, key in zip(PRECEDENCE, keys, strict=True)
    )
