"""Which policy applies to a job, and why: the four levels, what is served, and what the action makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policystore.inventory.models import Organization
from policystore.policies.break_glass import queries as break_glasses
from policystore.policies.core import queries
from policystore.policies.models import BreakGlass, CanaryScope, Policy
from policystore.policy_language.action_inputs import Inputs, Merged, merge
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.lint import remarks
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType, candidate_keys
from policystore.runners import fetch, resolution
from policystore.runners.resolution import Served


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its runner would name it; empty where the runner would say nothing."""

    repository: str
    workflow: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Level:
    """One of the four levels: its scope (None where the job names none) and the policy attached there, if any."""

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
    served: Served
    status: int
    body: str
    merged: Merged
    endpoint: str = ""

    @property
    def remarks(self) -> list[str]:
        """What the list does otherwise than it seems to."""
        merged = self.merged
        telemetry = not merged.disable_telemetry
        return remarks(merged.allowed_endpoints, egress_policy=merged.egress_policy, telemetry=telemetry)

    @property
    def verdict(self) -> Verdict | None:
        """What becomes of a call to the endpoint in question; None where none is in question."""
        if not self.endpoint:
            return None
        allowed = AllowList.from_entries(self.merged.allowed_endpoints, telemetry=not self.merged.disable_telemetry)
        if self.merged.egress_policy != "block" or allowed.gives_up:
            return Verdict.ALLOWED
        return allowed.verdict_of(self.endpoint)

    @property
    def shadowed(self) -> list[Level]:
        """Less specific levels whose policy does not apply since another one does."""
        return [level for level in self.levels if level.policy is not None and not level.applies]

    @property
    def break_glass(self) -> BreakGlass | None:
        """The break glass that makes audit of the policy's block, of several the one that lasts longest."""
        found = [level.break_glass for level in self.levels if level.break_glass is not None]
        return max(found, key=lambda one: one.ends_at) if found and self.served.break_glass else None

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
    """Resolve the job with the fetch's own statement, and explain the result; `endpoint` is a call in question."""
    served = resolution.resolve(organization.key, job.repository, job.workflow, job.cluster)
    reply = fetch.reply_of(served)
    named = resolution.resolve_named(organization.key, inputs.policy, job.repository, job.workflow)
    answers = {"policy_store": served.reply, "policy": named.reply, "workflow": ""}
    answer = answers[inputs.asks]
    return Explanation(
        levels=_levels(organization, job, served),
        served=served,
        status=reply.status,
        body=reply.body.decode(),
        merged=merge(inputs, json.loads(answer) if answer else None),
        endpoint=endpoint,
    )


def _levels(organization: Organization, job: Job, served: Served) -> tuple[Level, ...]:
    keys = candidate_keys(organization.key, job.repository, job.workflow, job.cluster)
    holders = queries.taken_scopes([key for key in keys if key], organization)
    broken = {found.scope_key: found for found in break_glasses.active(organization).filter(scope_key__in=keys)}
    canaries = set(
        CanaryScope.objects.filter(staged=served.policy_id, scope_key__in=keys).values_list("scope_key", flat=True)
    )
    return tuple(
        Level(
            type=scope_type,
            scope=Scope.from_key(key) if key else None,
            policy=holders[key].policy if key in holders else None,
            applies=bool(key) and key == served.scope_key,
            break_glass=broken.get(key),
            is_canary=key in canaries,
        )
        for scope_type, key in zip(PRECEDENCE, keys, strict=True)
    )


def describe(job: Job, organization: Organization, explanation: Explanation) -> Mapping[str, Any]:
    """The explanation as JSON; `served.body` is text, so that not a byte of it is changed."""
    served, merged = explanation.served, explanation.merged
    return {
        "owner": organization.key,
        "repository": job.repository,
        "workflow": job.workflow,
        "cluster": job.cluster,
        "levels": [_level(level) for level in explanation.levels],
        "applies": None
        if served.policy_id is None
        else {
            "policy": served.policy_name,
            "version": served.policy_version,
            "scope": served.scope_key,
            "egress_policy": served.egress_policy,
            "break_glass": served.break_glass,
            "staged": served.staged_event_id is not None,
        },
        "why": explanation.why,
        "shadows": [level.scope.key for level in explanation.shadowed if level.scope],
        "served": {"status": explanation.status, "body": explanation.body},
        "action": {
            "asks": merged.source,
            "egress_policy": merged.egress_policy,
            "allowed_endpoints": list(merged.allowed_endpoints),
            "disable_sudo": merged.disable_sudo,
            "disable_sudo_and_containers": merged.disable_sudo_and_containers,
            "disable_file_monitoring": merged.disable_file_monitoring,
            "disable_telemetry": merged.disable_telemetry,
            "reasons": list(merged.reasons),
            "remarks": explanation.remarks,
            "endpoint": explanation.endpoint or None,
            "verdict": explanation.verdict,
        },
    }


def _level(level: Level) -> dict[str, Any]:
    policy = level.policy
    return {
        "type": level.type.value,
        "scope": level.scope.key if level.scope else None,
        "policy": policy.name if policy else None,
        "break_glass_until": level.break_glass.ends_at.isoformat() if level.break_glass else None,
        "version": policy.version if policy else None,
        "egress_policy": policy.egress_policy if policy else None,
        "canary": level.is_canary,
        "applies": level.applies,
    }
