"""The demo organization: endpoint lists of real public workflows, made through the store's ordinary actions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.demo import scenarios
from policystore.demo.scenarios import At, Story
from policystore.detections import rules
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.policies import endpoint_sets, never_allow
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.scopes import Scope
from policystore.runners import blocklist, last_fetches
from policystore.runners.models import JobRun, Verification
from policystore.traffic import staging_results
from policystore.traffic.impact import bitmap_store

OWNER = "demo-org"
CLUSTERS = ("build-eu-1", "build-us-1")
DATA = Path(__file__).parent / "policies.json"
PEOPLE = (Actor("maria"), Actor("jonas"), Actor("terraform", kind="api_key"))
DAYS = 21
RUNS = 240

DEFAULT = """# Every repository without a policy of its own gets this one.
egress-policy: audit
allowed-endpoints: >
  results-receiver.actions.githubusercontent.com:443
  *.mirror.demo-org.example:443  # our old package mirror
endpoint-sets: github
"""
LOCKDOWN = """# Ends a job on our own clusters as soon as one of these is seen.
egress-policy: block
allowed-endpoints: |
  ghcr.io:443
  pkg-containers.githubusercontent.com:443
endpoint-sets:
  - github
lockdown-mode:
  enabled: true
  detections:
    - Privileged-Container
    - Runner-Worker-Memory-Read
    - Reverse-Shell
"""
GITHUB = """# Checkouts and the API
github.com:443
api.github.com:443
objects.githubusercontent.com:443
"""
EXEMPTION = """# The image builds need privileged containers.
egress-policy: audit
lockdown-mode:
  enabled: false
"""
DRAFT = """egress-policy: block
allowed-endpoints: >
  github.com:443
  *.blob.core.windows.net:443
"""


def load() -> Organization:
    """Make the demo organization with its repositories, policies, attachments, history and job runs."""
    rows = json.loads(DATA.read_text(encoding="utf-8"))
    now = timezone.now()

    def at(days_ago: float) -> datetime:
        return now - timedelta(days=days_ago)

    with transaction.atomic():
        organization = inventory.add_organization(login=OWNER)
        canary = next(row["repository"] for number, row in enumerate(rows) if not _has_own_policy(number))
        _play(
            _endpoint_set(organization, at),
            *(_real_policy(organization, row, number, at) for number, row in enumerate(rows)),
            *_own_policies(organization, at),
            *scenarios.roll_out(organization, canary=canary, people=PEOPLE, at=at),
            scenarios.ask(organization, people=PEOPLE, at=at),
        )
        _job_runs(organization, rows, canary, at)
        _rules_for_all(organization)
    bitmap_store.catch_up()
    return organization


def _play(*stories: Story) -> None:
    """Run the steps of all stories, the oldest first, so that the history is in the order of its times."""
    order = count()
    waiting = [(-next(story), next(order), story) for story in stories]
    heapify(waiting)
    while waiting:
        _, _, story = heappop(waiting)
        if (days_ago := next(story, None)) is not None:
            heappush(waiting, (-days_ago, next(order), story))


def _has_own_policy(number: int) -> bool:
    return number % 7 != 6


def _real_policy(organization: Organization, row: dict[str, Any], number: int, at: At) -> Story:
    day = DAYS - number * 0.7
    yield day
    by = PEOPLE[number % len(PEOPLE)]
    endpoints, late = row["endpoints"], number % 4 == 0 and len(row["endpoints"]) > 2
    policy = policies.create(
        organization=organization,
        name=row["name"],
        description=f"The {row['job']} job, as {row['source']} runs it.",
        text=_text(row, endpoints[:-2] if late else endpoints),
        by=by,
        at=at(day),
    )
    scope = Scope.for_workflow(OWNER, row["repository"], row["workflow"])
    if _has_own_policy(number):
        yield day - 0.1
        _attach(policy, [scope], by=by, at=at(day - 0.1))
    if late:
        yield day - 2
        policies.UpdatePolicy(
            policy=policy,
            name=policy.name,
            description=policy.description,
            text=_text(row, endpoints),
            expected_version=1,
        ).apply(by=PEOPLE[0], at=at(day - 2))


def _endpoint_set(organization: Organization, at: At) -> Story:
    yield DAYS
    github = endpoint_sets.create(
        organization=organization,
        name="github",
        description="What every job needs of GitHub.",
        text=GITHUB,
        by=PEOPLE[0],
        at=at(DAYS),
    )
    yield 12.5
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=github,
        name=github.name,
        description=github.description,
        text=f"{GITHUB}# Assets of releases moved here\nrelease-assets.githubusercontent.com:443\n",
        expected_version=github.version,
    ).apply(by=PEOPLE[1], at=at(12.5))


def _text(row: dict[str, Any], endpoints: list[str]) -> str:
    head = [f"# {row['job']} in {row['workflow']}", f"egress-policy: {row['egress_policy']}"]
    head += [f"{name}: {str(value).lower()}" for name, value in row["switches"].items()]
    return "\n".join([*head, *_STYLES[row["style"]](endpoints)]) + "\n"


def _folded(endpoints: list[str]) -> list[str]:
    return ["allowed-endpoints: >", *(f"  {endpoint}" for endpoint in endpoints)]


def _literal(endpoints: list[str]) -> list[str]:
    return ["allowed-endpoints: |", *(f"  {endpoint}" for endpoint in endpoints)]


def _list(endpoints: list[str]) -> list[str]:
    return ["allowed-endpoints:", *(f'  - "{endpoint}"' for endpoint in endpoints)]


_STYLES = {"folded": _folded, "literal": _literal, "list": _list}


def _own_policies(organization: Organization, at: At) -> list[Story]:
    maria, jonas, _ = PEOPLE

    def create(name: str, text: str, description: str, day: float) -> Policy:
        return policies.create(
            organization=organization, name=name, description=description, text=text, by=maria, at=at(day)
        )

    def default() -> Story:
        yield 20
        policy = create("org-default", DEFAULT, "What every repository may reach until it has its own policy.", 20)
        yield 19.9
        _attach(policy, [Scope.for_organization(OWNER)], by=maria, at=at(19.9))

    def cluster() -> Story:
        yield 12
        policy = create("arc-lockdown", LOCKDOWN, "Our ARC clusters.", 12)
        yield 11.5
        _attach(policy, [Scope.for_cluster(OWNER, name) for name in CLUSTERS], by=jonas, at=at(11.5))

    def exemption() -> Story:
        yield 8
        policy = create("lockdown-exemption", EXEMPTION, "Image builds run privileged containers.", 8)
        build = Scope.for_workflow(OWNER, "melange", "build.yaml")
        yield 7.5
        _attach(policy, [build], by=maria, at=at(7.5))
        yield 3
        _attach(policy, [Scope.for_repository(OWNER, "melange")], remove=[build], by=jonas, at=at(3))

    def strict() -> Story:
        yield 2
        policy = create("codespell-strict", DRAFT, "", 2)
        yield 1
        _attach(policy, [Scope.for_workflow(OWNER, "dockerfiles", "codespell.yml")], by=jonas, at=at(1))
        yield 0.4
        attachments.DetachPolicy(policy=policy).apply(by=maria, at=at(0.4))

    return [default(), cluster(), exemption(), strict()]


def _attach(policy: Policy, add: list[Scope], *, by: Actor, at: datetime, remove: Collection[Scope] = ()) -> None:
    command = attachments.ModifyAttachments(policy=policy, add=add, remove=remove, replacing=None)
    command.apply(by=by, at=at)


def _job_runs(organization: Organization, rows: list[dict[str, Any]], canary: str, at: At) -> None:
    # The same store on every machine: a seeded generator, not chance.
    random = Random(20240117)  # noqa: S311
    rows_with_policies = Attachment.objects.filter(organization=organization).select_related("policy")
    attached = {row.scope_key: row for row in rows_with_policies}
    default = attached[Scope.for_organization(OWNER).key]
    runs = []
    for number in range(RUNS):
        row = random.choice(rows)
        fetched_at = at(DAYS * (1 - number / RUNS) * 0.9)
        scope = Scope.for_workflow(OWNER, row["repository"], row["workflow"])
        holder = attached.get(scope.key) or attached.get(Scope.for_repository(OWNER, row["repository"]).key) or default
        runs.append(
            JobRun(
                organization=organization,
                repository=row["repository"],
                workflow=row["workflow"],
                run_id=str(11_000_000_000 + number * 7919),
                correlation_id=str(uuid.UUID(int=random.getrandbits(128), version=4)),
                job=row["job"],
                cluster=CLUSTERS[number % 8 // 4] if number % 4 == 1 else "",
                policy_id=holder.policy_id,
                policy_name=holder.policy.name,
                policy_version=holder.policy.version,
                scope_key=holder.scope_key,
                egress_policy=holder.policy.egress_policy,
                first_seen_at=fetched_at,
                fetched_at=fetched_at,
                verified_by=Verification.KEY,
            )
        )
    scenarios.serve(runs, organization, canary=canary, at=at)
    JobRun.objects.bulk_create(runs)
    inventory.learn(
        sightings=[inventory.Sighting(organization.pk, run.repository, run.workflow, run.cluster) for run in runs]
    )
    last_fetches.store(fetches=[fetched for run in runs if (fetched := last_fetches.Fetched.of(run))])
    listed = {(row["repository"], row["workflow"]): row["endpoints"] for row in rows}
    for run in runs:
        scenarios.observe(run, listed[run.repository, run.workflow], random)
    scenarios.attack(runs[-3])
    # As the worker would.
    staging_results.catch_up(settled_after=timedelta(0))


def _rules_for_all(organization: Organization) -> None:
    maria, jonas, _ = PEOPLE
    reason = "Collected credentials in a supply-chain attack."
    blocklist.add(organization=organization, endpoint="exfiltration.example", reason=reason, by=maria)
    blocklist.add(organization=organization, endpoint="*.pastes.example", reason="Anybody can write there.", by=jonas)
    never_allow.add(organization=organization, host="transfer.sh", reason="Anybody can leave files there.", by=maria)
    accepted = rules.draft(
        organization=organization,
        detection_id="",
        scope_key="",
        destination="updates.tool.example",
        process="",
        reason="The tool looks for a newer version of itself.",
    )
    rules.create(rule=accepted, by=jonas)
