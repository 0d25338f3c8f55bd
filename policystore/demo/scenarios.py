"""Scenarios of the demo: a staged version, an exception, break glass, change requests, and the traffic of jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from random import Random

from policystore.accounts.models import Actor
from policystore.detections import actions
from policystore.detections.actions import Report
from policystore.inventory.models import Organization
from policystore.policies import break_glass, exceptions, staging
from policystore.policies.approvals import requests as change_requests
from policystore.policies.core.actions import UpdatePolicy
from policystore.policies.models import Attachment, BreakGlass, ChangeRequest, Policy, StagedVersion
from policystore.policy_language import editor
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic.event_parser import ParsedEvent

# The time so many days ago, so that the history is spread over days.
At = Callable[[float], datetime]
# Steps in order: yields how many days ago each happened, and takes it when it is resumed.
Story = Iterator[float]
CANARY_SINCE = 10
ADDED = ("*.githubusercontent.com:443", "files.octopackages.org:443", "octo.org:443", "registry.octo1.org:443")
PROCESSES = (
    ("git", "bash", "Runner.Worker"),
    ("curl", "bash", "Runner.Worker"),
    ("node", "Runner.Worker"),
    ("go", "make", "bash", "Runner.Worker"),
    ("dockerd", "systemd"),
)
STRANGERS = ("collect.telemetry.example", "updates.tool.example", "cdn.assets.example")


def roll_out(organization: Organization, *, canary: str, people: Sequence[Actor], at: At) -> list[Story]:
    """Stage a version of the organization's policy that blocks, for one repository; break the glass for some hours;
    and allow one endpoint for some weeks."""
    maria, jonas, *_ = people
    scope = Scope.for_organization(organization.login)

    def policy() -> Policy:
        return Attachment.objects.select_related("policy").get(organization=organization, scope_key=scope.key).policy

    def stage() -> Story:
        yield 12
        default = policy()
        text = editor.set_values(editor.add_endpoints(default.text, ADDED), {"egress-policy": "block"})
        version = staging.StageVersion(
            policy=default, text=text, live_version=default.version, expected_event=None
        ).apply(by=maria, at=at(12))
        yield CANARY_SINCE
        scopes = [Scope.for_repository(organization.login, canary)]
        staging.SetCanaries(policy=default, scopes=scopes, expected_event=version.event_id).apply(
            by=maria, at=at(CANARY_SINCE)
        )

    def break_once() -> Story:
        yield 5
        begun = break_glass.start(
            organization=organization,
            scope=scope,
            hours=8,
            reason="A registry moved to another host overnight; image builds fail until all lists include it.",
            by=jonas,
            at=at(5),
        )
        yield 5 - 8 / 24
        break_glass.record_expired(at=begun.ends_at)

    def except_once() -> Story:
        yield 1
        exceptions.AddException(
            policy=policy(),
            endpoint="downloads.vendor.example:443",
            reason="The vendor moves downloads to another host; remove it once the installer follows.",
            expires_at=at(1) + timedelta(days=30),
        ).apply(by=maria, at=at(1))

    return [stage(), break_once(), except_once()]


def serve(runs: Iterable[JobRun], organization: Organization, *, canary: str, at: At) -> None:
    """Let the canary's later runs get the staged version; others got audit while the glass was broken."""
    version = StagedVersion.objects.select_related("policy").get(policy__organization=organization)
    glass = BreakGlass.objects.get(organization=organization)
    for run in runs:
        if run.policy_id == version.policy_id and run.repository == canary and run.first_seen_at > at(CANARY_SINCE):
            run.staged_event_id, run.egress_policy = version.event_id, version.egress_policy
        if glass.started_at <= run.first_seen_at < glass.ends_at and run.egress_policy == Policy.Mode.BLOCK:
            run.break_glass, run.egress_policy = True, Policy.Mode.AUDIT


def ask(organization: Organization, *, people: Sequence[Actor], at: At) -> Story:
    """Request to audit two policies that block, and decline one of the requests."""
    maria, jonas, *_ = people
    yield 5.8
    first, second = Policy.objects.filter(organization=organization, egress_policy=Policy.Mode.BLOCK).order_by("pk")[:2]
    request = _ask_to_audit(first, by=jonas, at=at(5.8))
    yield 5.7
    comment = "One endpoint is missing; add it instead."
    change_requests.decline(request=request, by=maria, comment=comment, at=at(5.7))
    yield 5.5
    _ask_to_audit(second, by=jonas, at=at(5.5))


def _ask_to_audit(policy: Policy, *, by: Actor, at: datetime) -> ChangeRequest:
    audit = UpdatePolicy(
        policy=policy,
        name=policy.name,
        description=policy.description,
        text=policy.text.replace("egress-policy: block", "egress-policy: audit"),
        expected_version=policy.version,
    )
    return change_requests.ask(change=audit.change(policy), by=by, at=at)


def observe(run: JobRun, endpoints: Sequence[str], random: Random) -> None:
    """Let a job run call most of its policy's endpoints, and now and then something else."""
    seen = [
        _call(run, host, int(port), number, random)
        for number, (host, port) in enumerate(_concrete(endpoints, random))
        for _ in range(random.choice((1, 1, 2, 3)))
    ]
    if random.random() < 0.12:
        dropped = run.egress_policy == "block" and random.random() < 0.8
        seen.append(_call(run, random.choice(STRANGERS), 443, 900, random, dropped=dropped))
    if seen:
        actions.observe(run=run, events=seen, received_at=run.first_seen_at + timedelta(minutes=10))


def attack(run: JobRun) -> None:
    """Let the agent of a locked-down cluster end a job in which a reverse shell was opened."""
    at = run.first_seen_at + timedelta(minutes=2)
    report = Report(
        detection_id="Reverse-Shell",
        detail="bash was connected to collect.telemetry.example:4444",
        host="collect.telemetry.example",
        port=4444,
        process="bash",
        is_lockdown=True,
        job_terminated=True,
        client_at=at,
        digest="demo-reverse-shell",
    )
    actions.report(run=run, reports=[report], received_at=at + timedelta(seconds=5))


def _concrete(endpoints: Sequence[str], random: Random) -> list[tuple[str, str]]:
    """Endpoints that can be called: a wildcard stands for one host below it; some are left out."""
    found = []
    for endpoint in endpoints:
        host, _, port = endpoint.partition(":")
        if random.random() < 0.85:
            found.append((host.replace("*", random.choice(("east", "west"))), port or "443"))
    return found


def _call(run: JobRun, host: str, port: int, number: int, random: Random, *, dropped: bool = False) -> ParsedEvent:
    at: datetime = run.first_seen_at + timedelta(seconds=3 + number * 2 + random.random())
    process = PROCESSES[(len(host) + number) % len(PROCESSES)]
    digest = hashlib.blake2b(f"{run.pk} {host} {port} {at.isoformat()}".encode(), digest_size=16).hexdigest()
    return ParsedEvent(
        kind="connection",
        host=host,
        port=port,
        address=f"192.0.2.{len(host) % 250 + 1}",
        client_at=at,
        process=process[0],
        ancestry=json.dumps([{"name": name, "sha256": ""} for name in process]),
        step="",
        outcome="blocked" if dropped else "",
        reason="",
        digest=digest,
    )
