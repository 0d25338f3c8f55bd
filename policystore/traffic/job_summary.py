"""The job summary that a job's last step requests without a key: its policy and its calls, in Markdown."""

from __future__ import annotations

import re
from datetime import timedelta

from django.conf import settings
from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from policystore.policy_language.scopes import Scope
from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.models import JobRun
from policystore.runners.protocol import known_run
from policystore.traffic.models import NOT_ALLOWED, NetworkEvent, Status
from policystore.web.json_api import Reply, refuse, route

MAX_ENDPOINTS = 50
# Fetches are recorded after they are answered; a job younger than this may have fetched without a record.
RECORDING_DELAY = timedelta(seconds=10)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MODES = {
    "block": "Block: only allowed endpoints can be reached",
    "audit": "Audit: nothing is blocked",
}
_BREAK_GLASS = "Audit: break glass is active for this scope, so nothing is blocked until it ends"

_UNDETERMINED = "Wildcards with different ports match these hosts. In block mode, the agent uses one of them at random."


@route("GET")
def job_markdown_summary(request: HttpRequest, owner: str, repository: str, run_id: str, correlation_id: str) -> Reply:
    """Markdown for a job that the store saw recently; 403 for any other."""
    run = known_run(request, canonical_owner(owner), repository, correlation_id, run_id)
    if run is None:
        raise refuse(403, "unknown_job_run", "The store has not seen this job, or not recently.")
    run_url = settings.PUBLIC_URL + reverse("runs:run", args=[run.organization.key, run.pk])
    text = markdown(run, run_url=run_url)
    return Reply(status=200, body=text.encode(), content_type="text/markdown; charset=utf-8")


def markdown(run: JobRun, *, run_url: str) -> str:
    """Return a heading, what applied, what was blocked or off the list, and a link to the run's page."""
    events = NetworkEvent.objects.filter(job_run=run)
    off_list = events.filter(status__in=NOT_ALLOWED)
    tables = [
        *_table("Blocked", "These calls were stopped by the policy.", events.filter(status=Status.BLOCKED)),
        *_table("Not on the policy's list", "A policy in block mode would stop these calls.", off_list),
        *_table("Undetermined", _UNDETERMINED, events.filter(status=Status.UNDETERMINED)),
    ]
    link = f"[Open this run in Policy Store]({run_url})"
    return "\n".join(["## Policy Store", "", *_applied(run), "", *(tables or _without_table(run)), link]) + "\n"


def _without_table(run: JobRun) -> list[str]:
    """How the calls compare with the policy, or how many there were without one."""
    endpoints = _endpoints_called(run)
    if not endpoints:
        return []
    called, them = ("1 endpoint", "it") if endpoints == 1 else (f"{endpoints} endpoints", "all of them")
    listed = "" if run.policy_id is None else f", and the policy lists {them}"
    return [f"The job called {called}{listed}.", ""]


def _endpoints_called(run: JobRun) -> int:
    if run.is_verified:
        return run.endpoints.count()
    connections = NetworkEvent.objects.filter(job_run=run, kind=NetworkEvent.Kind.CONNECTION).order_by()
    return connections.values("host", "port").distinct().count()


def _applied(run: JobRun) -> list[str]:
    if run.fetched_at is None:
        return [_not_fetched(run)]
    if run.policy_id is None:
        scopes = (
            "workflow, repository, organization or cluster" if run.cluster else "workflow, repository or organization"
        )
        return [f"No policy applied: none is attached to this job's {scopes}. Nothing was blocked."]
    version = "staged" if run.is_canary else run.policy_version
    mode = _BREAK_GLASS if run.break_glass else _MODES[run.egress_policy]
    return [
        "| Policy | Version | Attached to | Mode |",
        "| --- | --- | --- | --- |",
        f"| {_code(run.policy_name)} | {version} | {_scope(run.scope_key)} | {mode} |",
    ]


def _not_fetched(run: JobRun) -> str:
    if timezone.now() - run.first_seen_at < RECORDING_DELAY:
        return "The job started a few seconds ago, so its policy may not be recorded yet. Open the run to see it."
    # On third-party runners the action fetches under an id that it generates, and registers under the runner's name.
    if _UUID.fullmatch(run.correlation_id):
        return "No policy applied: the job did not fetch one from this store."
    return f"No policy applied: the job registered as runner {_code(run.correlation_id)}, which did not fetch a policy."


def _scope(key: str) -> str:
    scope = Scope.from_key(key)
    return f"{scope.type.label} {_code(scope.label)}"


def _table(heading: str, sentence: str, events: QuerySet[NetworkEvent]) -> list[str]:
    """The endpoints of these events, those with the most calls first, each with one of the processes that called it."""
    called = events.order_by().values_list("host", "port").annotate(calls=Count("pk"), caller=Max("process"))
    shown = list(called.order_by("-calls", "host", "port")[:MAX_ENDPOINTS])
    if not shown:
        return []
    more = called.count() - MAX_ENDPOINTS
    return [
        f"### {heading}",
        "",
        sentence,
        "",
        "| Endpoint | Calls | Process |",
        "| --- | --- | --- |",
        *(f"| {_code(f'{host}:{port}')} | {calls:,} | {_code(caller)} |" for host, port, calls, caller in shown),
        "",
        *([f"and {more:,} more", ""] if more > 0 else []),
    ]


def _code(text: str) -> str:
    """Return the text as a code span inside a table; nothing in it can end the span, the cell or the line."""
    if not text:
        return ""
    plain = "".join(character if character.isprintable() else " " for character in text)
    for special, replacement in (("`", "'"), ("|", "/")):
        plain = plain.replace(special, replacement)
    return f"`{plain}`"
