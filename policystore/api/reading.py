"""Read-only JSON for systems: baselines, detections, and which policy applies to a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from django.db import connection
from django.http import HttpRequest

from policystore.accounts import api_keys
from policystore.accounts.api_keys import live_key
from policystore.accounts.models import ApiKey
from policystore.api.auth import organization_of_key, require_owner
from policystore.detections import queries as detection_queries
from policystore.detections.models import Detection
from policystore.enforcers import github_firewall
from policystore.enforcers.github_firewall import RepositoryFile
from policystore.inventory.models import Organization
from policystore.policies.firewall_files import Files
from policystore.runners.clusters import cluster_of, require_cluster
from policystore.runners.explain import ExplainForm, Explanation, Job, Level, explain
from policystore.runners.models import JobRun
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope, Endpoint
from policystore.traffic.models import RunEndpoint
from policystore.web import pagination
from policystore.web.json_api import Reply, json_object, json_reply, refuse, route, storable

EXPLAIN_SCHEMES = ("bearer", "vm-api-key")
MAX_DETECTIONS = 500
CALLERS_PER_ENDPOINT = 5
ENDPOINTS_PER_STATEMENT = 200
# One index look-up per endpoint, however long ago it was called last.
_LATEST_CALLERS = """
SELECT {number}, id FROM (
  SELECT id FROM traffic_runendpoint WHERE organization_id = %s AND host = %s AND port = %s
  ORDER BY job_run_id DESC LIMIT %s
) AS e{number}
"""


@route("GET")
def organization_baseline(request: HttpRequest, owner: str) -> Reply:
    """Every endpoint of the organization, each with the latest job runs that called it."""
    organization = organization_of_key(request, owner)
    search = storable(request.GET.get("search", ""))[:200]
    endpoints = baseline.endpoints(organization, BaselineScope(), search=search)
    callers = _latest_callers(organization, endpoints)
    payload = [
        {
            "endpoint": endpoint.text,
            "total_calls": endpoint.calls,
            "total_workflow_runs": endpoint.runs,
            "last_seen": endpoint.last_seen_at.isoformat(),
            "endpoint_observations": callers.get((endpoint.host, endpoint.port), []),
        }
        for endpoint in endpoints
    ]
    runs = JobRun.objects.filter(organization=organization, calls__gt=0, counts_in_repository=True).count()
    return json_reply({"data": {"owner": organization.login, "total_workflow_runs": runs, "endpoints": payload}})


@route("GET")
def repository_baseline(request: HttpRequest, owner: str, repository: str) -> Reply:
    """The endpoints of one repository."""
    organization = organization_of_key(request, owner)
    endpoints = baseline.endpoints(organization, BaselineScope(repository=repository))
    return json_reply({"endpoints": [{"endpoint": endpoint.text} for endpoint in endpoints]})


def _latest_callers(
    organization: Organization, endpoints: Sequence[Endpoint]
) -> dict[tuple[str, int], list[dict[str, object]]]:
    """By host and port, the latest runs that called each endpoint, newest first, at most CALLERS_PER_ENDPOINT."""
    callers: dict[tuple[str, int], list[dict[str, object]]] = {}
    for start in range(0, len(endpoints), ENDPOINTS_PER_STATEMENT):
        part = endpoints[start : start + ENDPOINTS_PER_STATEMENT]
        rows = RunEndpoint.objects.filter(pk__in=_latest_ids(organization, part)).select_related("job_run")
        for row in rows.order_by("-job_run_id"):
            callers.setdefault((row.host, row.port), []).append(_observation(organization, row))
    return callers


def _latest_ids(organization: Organization, endpoints: Sequence[Endpoint]) -> list[int]:
    statement = " UNION ALL ".join(_LATEST_CALLERS.format(number=number) for number in range(len(endpoints)))
    values = [value for e in endpoints for value in (organization.pk, e.host, e.port, CALLERS_PER_ENDPOINT)]
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [row[1] for row in cursor.fetchall()]


def _observation(organization: Organization, row: RunEndpoint) -> dict[str, object]:
    run = row.job_run
    return {
        "repo": f"{organization.login}/{run.repository}",
        "workflow_file_name": run.workflow,
        "job": run.job,
        "run_id": run.run_id,
        "timestamp": row.last_seen_at.isoformat(),
    }


@route("GET")
def detections(request: HttpRequest, owner: str) -> Reply:
    """Return detections, newest first, at most `limit`; pass `next_token` of the reply to get the next page."""
    organization = organization_of_key(request, owner)
    page = detection_queries.page(
        organization,
        status=_status(request),
        detection_id=storable(request.GET.get("detection_id", ""))[:100],
        before=str(_number(request, "next_token", pagination.MAX_ROW_ID) or ""),
        size=_number(request, "limit", MAX_DETECTIONS) or 100,
    )
    for detection in page.rows:
        detection.organization = organization
    rows = [detection_queries.payload(detection) for detection in page.rows]
    data = {
        "detections": rows,
        "has_more": bool(page.next_cursor),
        "next_token": page.next_cursor,
        "count": len(rows),
    }
    return json_reply({"data": data})


def _status(request: HttpRequest) -> str:
    status = request.GET.get("status", "")
    if status and status not in Detection.Status.values:
        valid = ", ".join(Detection.Status.values)
        raise refuse(422, "invalid_parameter", f"“{status[:40]}” is not a valid status. Use one of {valid}.")
    return status


def _number(request: HttpRequest, name: str, max_value: int) -> int | None:
    text = request.GET.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 18 or int(text) == 0:
        raise refuse(422, "invalid_parameter", f"{name} must be a whole number of at least 1, for example 100.")
    return min(int(text), max_value)


@route("GET", "POST")
def firewall_file(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Return the file of GitHub's firewall for a repository; POST tells how a committed one differs from it."""
    key = _any_key(request, owner)
    require_cluster(key, "")
    without_defaults = request.GET.get("no_default_urls") in ("1", "true")
    file = Files(key.organization, default_hosts=not without_defaults).of(repository)
    if file is None:
        raise refuse(404, "no_policy", "No policy is attached to the repository, its workflows or the organization.")
    if request.method == "POST":
        return _drift(json_object(request), file)
    return json_reply({"path": github_firewall.PATH, **asdict(file)})


def _drift(body: Mapping[str, Any], file: RepositoryFile) -> Reply:
    text = body.get("text")
    if not isinstance(text, str):
        raise refuse(422, "invalid_body", 'Send the committed file as {"text": "mode: enforce…"}.')
    try:
        drift = github_firewall.drift(text, file.text)
    except github_firewall.UnreadableFile as error:
        raise refuse(422, "invalid_body", str(error)) from error
    return json_reply({"is_current": not drift, **asdict(drift)})


def _any_key(request: HttpRequest, owner: str) -> ApiKey:
    """Return the key of the organization that was sent, of any kind. Raises Refused."""
    scheme, sent_key = api_keys.parse_authorization(request.headers.get("Authorization", ""))
    key = live_key(sent_key) if scheme in EXPLAIN_SCHEMES else None
    if key is None:
        raise refuse(401, "unauthorized", "Send a key of this organization as `Bearer KEY` or `vm-api-key KEY`.")
    require_owner(key, owner)
    return key


@route("GET")
def explain_policy(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Explain which policy applies to a job, and what the action makes of the inputs of its step."""
    key = _any_key(request, owner)
    cluster = cluster_of(request.META, request.GET.get("cluster", ""))
    require_cluster(key, cluster)
    values = {**request.GET.dict(), "repository": repository, "cluster": cluster}
    form = ExplainForm(values, owner=key.organization.login)
    if not form.is_valid():
        name, problems = next(iter(form.errors.items()))
        raise refuse(400, "invalid_parameter", f"{form.add_prefix(name)}: {problems[0]}")
    explanation = explain(key.organization, form.job, form.inputs, endpoint=form.cleaned_data["endpoint"])
    return json_reply(_describe(form.job, key.organization, explanation))


def _describe(job: Job, organization: Organization, explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as JSON; `served.body` is text, so that not a byte of it changes."""
    served, merged = explanation.served, asdict(explanation.merged)
    return {
        "owner": organization.key,
        "repository": job.repository,
        "workflow": job.workflow,
        "cluster": job.cluster,
        "levels": [_describe_level(level) for level in explanation.levels],
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
            "asks": merged.pop("source"),
            **merged,
            "remarks": explanation.remarks,
            "endpoint": explanation.endpoint or None,
            "verdict": explanation.verdict,
        },
    }


def _describe_level(level: Level) -> dict[str, Any]:
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
