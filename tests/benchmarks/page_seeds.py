"""An organization that has seen much: a job with very many events, a policy with very many versions, and more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

ROWS_AT_ONCE = 2000
LINES = 2000


def fill(login: str, *, events: int, versions: int, runs: int, repositories: int) -> dict[str, int]:
    """Make it; returns the ids of the policy and of the job run."""
    from policystore.accounts.models import Actor
    from policystore.policies.core import actions as policies
    from policystore.policies.core import attachments
    from policystore.policy_language.scopes import Scope
    from tests import factories

    organization = factories.organization(login)
    policy = factories.policy(organization, "busy", _text("first", 0))
    for number in range(1, versions):
        # The last one changes every line.
        text = _text("last", number, lines=LINES) if number == versions - 1 else _text("first", number)
        text = _text("before", number, lines=LINES) if number == versions - 2 else text
        policy = policies.UpdatePolicy(
            policy=policy, name=policy.name, description="", text=text, expected_version=policy.version
        ).apply(by=Actor(f"person-{number % 20}"))
        if number % 10 == 0:
            scope = Scope.for_repository(login, f"attached-{number}")
            attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=Actor("maria"))
    _workflows(organization, repositories)
    return {"policy": policy.pk, "run": _runs(organization, policy, runs, events)}


def _text(word: str, number: int, *, lines: int = 20) -> str:
    notes = "".join(f"# {word} note {line}\n" for line in range(lines))
    return f"# change {number}\n{notes}egress-policy: block\nallowed-endpoints: github.com:443\n"


def _workflows(organization: Any, count: int) -> None:
    from policystore.inventory.models import Repository, Workflow

    for start in range(0, count, ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, count))
        made = Repository.objects.bulk_create(
            Repository(organization=organization, name=f"repository-{n}", key=f"repository-{n}") for n in numbers
        )
        Workflow.objects.bulk_create(Workflow(repository=repository, file_name="ci.yml") for repository in made)


def _runs(organization: Any, policy: Any, count: int, events: int) -> int:
    from django.utils import timezone

    from policystore.runners.models import JobRun
    from policystore.traffic.models import NetworkEvent

    now = timezone.now()
    served = {"policy_id": policy.pk, "policy_name": policy.name, "policy_version": 1, "egress_policy": "block"}
    for start in range(0, count, ROWS_AT_ONCE):
        made = JobRun.objects.bulk_create(
            JobRun(
                verified_by="key",
                organization=organization,
                repository=f"repository-{number % 500}",
                workflow="ci.yml",
                job="build",
                run_id=str(number),
                correlation_id=f"run-{number}",
                first_seen_at=now - timedelta(days=60 * (count - number) / count),
                fetched_at=now,
                calls=20,
                blocked_calls=number % 3,
                **served,
            )
            for number in range(start, min(start + ROWS_AT_ONCE, count))
        )
    run = made[-1]
    for start in range(0, events, ROWS_AT_ONCE):
        NetworkEvent.objects.bulk_create(
            NetworkEvent(
                organization=organization,
                job_run=run,
                digest=f"{number:032}",
                kind="connection",
                host=f"service-{number % 900}.example.com",
                port=443,
                process="curl",
                ancestry=[{"name": "curl"}, {"name": "bash"}],
                status=("allowed", "allowed", "blocked", "off_list")[number % 4],
                is_new=number % 50 == 0,
                occurred_at=now - timedelta(milliseconds=number),
                received_at=now,
            )
            for number in range(start, min(start + ROWS_AT_ONCE, events))
        )
    return int(run.pk)
