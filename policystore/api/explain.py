"""Which policy applies to a job, as JSON for systems with any live key of the organization."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from policystore.accounts import api_keys
from policystore.accounts.api_keys import live_key
from policystore.inventory.models import Organization
from policystore.runners.clusters import cluster_of, require_cluster
from policystore.runners.explain import Explanation, Job, Level, explain
from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.forms import ExplainForm
from policystore.web.json_api import refuse, route
from policystore.web.responses import Reply, json_reply

SCHEMES = ("bearer", "vm-api-key")


@route("GET")
def explain_policy(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Explain which policy applies to a job, and what the action makes of the inputs of its step."""
    scheme, sent_key = api_keys.parse_authorization(request.headers.get("Authorization", ""))
    key = live_key(sent_key) if scheme in SCHEMES else None
    if key is None:
        raise refuse(401, "unauthorized", "Send a key of this organization as `Bearer KEY` or `vm-api-key KEY`.")
    if key.organization.key != canonical_owner(owner):
        raise refuse(403, "forbidden", "This key belongs to another organization.")
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
    served, merged = explanation.served, explanation.merged
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
            "asks": merged.source,
            "egress_policy": merged.egress_policy,
            "allowed_endpoints": list(merged.allowed_endpoints),
            "disable_sudo": merged.disable_sudo,
            "disable_sudo_and_containers": merged.disable_sudo_and_containers,
            "disable_file_monitoring": merged.disable_file_monitoring,
            "disable_telemetry": merged.disable_telemetry,
            "reasons": list(merged.reasons),
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
