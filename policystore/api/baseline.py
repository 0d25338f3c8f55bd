"""Baselines as JSON: the endpoints that an organization or a repository calls."""

from __future__ import annotations

from django.http import HttpRequest

from policystore.api.auth import organization_of_key
from policystore.traffic import baselines, endpoint_callers
from policystore.traffic.baselines import BaselineScope
from policystore.web.json_api import route, storable
from policystore.web.responses import Reply, json_reply


@route("GET")
def organization_baseline(request: HttpRequest, owner: str) -> Reply:
    """Return every endpoint of the organization with the jobs that called it last."""
    organization = organization_of_key(request, owner)
    search = storable(request.GET.get("search", ""))[:200]
    endpoints = baselines.endpoints(organization, BaselineScope(), search=search)
    observations = endpoint_callers.latest(organization, endpoints)
    rows = [
        {
            "endpoint": endpoint.written,
            "total_calls": endpoint.calls,
            "total_workflow_runs": endpoint.runs,
            "last_seen": endpoint.last_seen_at.isoformat(),
            "endpoint_observations": observations.get((endpoint.host, endpoint.port), []),
        }
        for endpoint in endpoints
    ]
    runs = endpoint_callers.total_runs(organization)
    return json_reply({"data": {"owner": organization.login, "total_workflow_runs": runs, "endpoints": rows}})


@route("GET")
def repository_baseline(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Return the endpoints of one repository."""
    organization = organization_of_key(request, owner)
    endpoints = baselines.endpoints(organization, BaselineScope(repository=repository))
    return json_reply({"endpoints": [{"endpoint": endpoint.written} for endpoint in endpoints]})
