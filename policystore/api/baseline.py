"""Baselines as JSON: the endpoints that an organization or a repository calls."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection
from django.http import HttpRequest

from policystore.api.auth import organization_of_key
from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope, Endpoint
from policystore.traffic.models import RunEndpoint
from policystore.web.json_api import route, storable
from policystore.web.responses import Reply, json_reply

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
