"""Scenarios of the demo: a staged version with a canary, an exception, break glass, and change requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from policystore.accounts.models import Actor
from policystore.inventory.models import Organization
from policystore.policies import break_glass, exceptions
from policystore.policies import staging as staged
from policystore.policies.approvals import requests as change_requests
from policystore.policies.core.actions import UpdatePolicy
from policystore.policies.models import BreakGlass, ChangeRequest, Policy, StagedVersion
from policystore.policy_language import editor
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic import staging_results

ADDED = ("*.githubusercontent.com:443", "files.octopackages.org:443", "octo.org:443", "registry.octo1.org:443")


def stage(default: Policy, *, by: Actor, at: Callable[[float], datetime]) -> StagedVersion:
    """Stage a version of the organization's policy that blocks."""
    text = editor.set_values(editor.add_endpoints(default.text, ADDED), {"egress-policy": "block"})
    live = default.version
    return staged.StageVersion(policy=default, text=text, live_version=live, expected_event=None).apply(
        by=by, at=at(12)
    )


def break_once(scope: Scope, *, policy: Policy, by: Actor, at: Callable[[float], datetime]) -> BreakGlass:
    """Break the glass of a scope for some hours, days ago."""
    begun = break_glass.start(
        organization=policy.organization,
        scope=scope,
        hours=8,
        reason="A registry moved to another host overnight; image builds fail until all lists include it.",
        by=by,
        at=at(5),
    )
    break_glass.record_expired(at=begun.ends_at)
    return begun


def except_once(policy: Policy, *, by: Actor, at: Callable[[float], datetime]) -> None:
    """Allow one endpoint for some weeks, since a day ago."""
    reason = "The vendor moves downloads to another host; remove it once the installer follows."
    begun = at(1)
    exceptions.AddException(
        policy=policy, endpoint="downloads.vendor.example:443", reason=reason, expires_at=begun + timedelta(days=30)
    ).apply(by=by, at=begun)


def serve(runs: Iterable[JobRun], *, version: StagedVersion, glass: BreakGlass, by: Actor) -> None:
    """Let one repository be a canary, and its later runs get the staged version; others got audit while the glass was
    broken."""
    runs = list(runs)
    name = next(run.repository for run in reversed(runs) if run.policy_id == version.policy_id)
    canary = Scope.for_repository(version.policy.organization.login, name)
    chosen_at = version.staged_at + timedelta(days=2)
    staged.SetCanaries(policy=version.policy, scopes=[canary], expected_event=version.event_id).apply(
        by=by, at=chosen_at
    )
    for run in runs:
        if run.policy_id == version.policy_id and run.repository == name and run.first_seen_at > chosen_at:
            run.staged_event_id, run.egress_policy = version.event_id, version.egress_policy
        if glass.started_at <= run.first_seen_at < glass.ends_at and run.egress_policy == Policy.Mode.BLOCK:
            run.break_glass, run.egress_policy = True, Policy.Mode.AUDIT


def judge() -> None:
    """Judge what was observed by the staged version, as the worker would."""
    staging_results.catch_up(settled_after=timedelta(0))


def ask(organization: Organization, *, people: Sequence[Actor], at: Callable[[float], datetime]) -> None:
    """Request to audit two policies that block, and decline one of the requests."""
    maria, jonas, *_ = people
    blocking = Policy.objects.filter(organization=organization, egress_policy=Policy.Mode.BLOCK).order_by("pk")
    first, _ = (
        _ask_to_audit(policy, by=jonas, at=at(day)) for policy, day in zip(blocking[:2], (5.8, 5.5), strict=True)
    )
    comment = "One endpoint is missing; add it instead."
    change_requests.decline(request=first, by=maria, comment=comment, at=at(5.7))


def _ask_to_audit(policy: Policy, *, by: Actor, at: datetime) -> ChangeRequest:
    audit = UpdatePolicy(
        policy=policy,
        name=policy.name,
        description=policy.description,
        text=policy.text.replace("egress-policy: block", "egress-policy: audit"),
        expected_version=policy.version,
    )
    return change_requests.ask(change=audit.change(policy), by=by, at=at)
