"""Traffic of the demo organization: what the jobs of its policies would be seen to call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

from policystore.detections import actions
from policystore.detections.reports import Report
from policystore.runners.models import JobRun
from policystore.traffic.event_parser import ParsedEvent

PROCESSES = (
    ("git", "bash", "Runner.Worker"),
    ("curl", "bash", "Runner.Worker"),
    ("node", "Runner.Worker"),
    ("go", "make", "bash", "Runner.Worker"),
    ("dockerd", "systemd"),
)
STRANGERS = ("collect.telemetry.example", "updates.tool.example", "cdn.assets.example")


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
        dropped=dropped,
        reason="",
        digest=digest,
    )
