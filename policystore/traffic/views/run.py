"""The page of one job run: the policy that it got and why, and its network events."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic import queries
from policystore.traffic.baselines import BaselineScope
from policystore.traffic.exemptions import exempted_from
from policystore.traffic.views import tabs

OTHER_JOBS_SHOWN = 50


@require_GET
@vary_on_headers("HX-Request")
def run(request: HttpRequest, owner: str, run_id: int) -> HttpResponse:
    """One job run, with a page of its events narrowed by tab."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    found = JobRun.objects.filter(organization=organization, pk=run_id).first()
    if found is None:
        raise Http404("This organization has no such run.")
    tab = request.GET.get("tab", "")
    page = queries.events_page(found, tab, before=request.GET.get("before", ""))
    context = {
        "organization": organization,
        "run": found,
        "policy": Policy.objects.filter(organization=organization, pk=found.policy_id or 0).first(),
        "scope": Scope.from_key(found.scope_key) if found.scope_key else None,
        "exempted_from": exempted_from(found),
        "others": _others(found),
        "baseline": BaselineScope(found.repository, found.workflow, found.job, found.cluster, is_job=True),
        "repository_baseline": BaselineScope(found.repository),
        "page": page,
        "tabs": tabs.event_tabs(tab),
        **tabs.pager(page, tab=tab),
    }
    narrow = request.htmx and request.htmx.target == "events"  # type: ignore[attr-defined]
    return render(request, "traffic/run.html#events" if narrow else "traffic/run.html", context)


def _others(run: JobRun) -> list[JobRun]:
    """The other jobs of the same workflow run."""
    if not run.run_id:
        return []
    rows = JobRun.objects.filter(organization=run.organization_id, run_id=run.run_id).exclude(pk=run.pk)
    return list(rows.order_by("-pk")[:OTHER_JOBS_SHOWN])
