"""The baseline over the API, for systems with a management key."""

from __future__ import annotations

from django.http import HttpRequest

from policystore.accounts.api_keys import live_key
from policystore.accounts.models import KeyKind
from policystore.inventory.models import Organization
from policystore.runners.fetch import canonical_owner
from policystore.runners.http import refuse, route, storable
from policystore.runners.responses import Reply, json_reply
from policystore.traffic import baselines, endpoint_callers
from policystore.traffic.baselines import BaselineScope


@route("GET")
def organization_baseline(request: HttpRequest, owner: str) -> Reply:
    """Every endpoint of the organization with the jobs that called it last."""
    organization = reading_organization(request, owner)
    search = storable(request.GET.get("search", ""))[:200]
    found = baselines.endpoints(organization, BaselineScope(), search=search)
    observations = endpoint_callers.latest(organization, found)
    told = [
        {
            "endpoint": endpoint.written,
            "total_calls": endpoint.calls,
            "total_workflow_runs": endpoint.runs,
            "last_seen": endpoint.last_seen_at.isoformat(),
            "endpoint_observations": observations.get((endpoint.host, endpoint.port), []),
        }
        for endpoint in found
    ]
    runs = endpoint_callers.total_runs(organization)
    return json_reply({"data": {"owner": organization.login, "total_workflow_runs": runs, "endpoints": told}})


@route("GET")
def repository_baseline(request: HttpRequest, owner: str, repository: str) -> Reply:
    """The endpoints of one repository."""
    organization = reading_organization(request, owner)
    found = baselines.endpoints(organization, BaselineScope(repository=repository))
    return json_reply({"endpoints": [{"endpoint": endpoint.written} for endpoint in found]})


def reading_organization(request: HttpRequest, owner: str) -> Organization:
    """The organization of the management key that was sent, with or without a scheme. Raises Refused."""
    key = live_key(request.headers.get("Authorization", "").strip().rpartition(" ")[2])
    if key is None:
        raise refuse(401, "unauthorized", "Send a management key as `Bearer KEY`.")
    if key.organization.key != canonical_owner(owner):
        raise refuse(403, "forbidden", "This key belongs to another organization.")
    if key.kind != KeyKind.MANAGEMENT:
        raise refuse(403, "forbidden", "This is a runner key; use a management key.")
    return key.organization
