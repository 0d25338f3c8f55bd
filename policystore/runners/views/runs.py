"""Harden Runner → Runs: what jobs asked, which policy they got, and what telemetry told of them."""

from __future__ import annotations

from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.documents.scopes import Scope
from policystore.policies.models import Policy
from policystore.runners import queries
from policystore.runners.models import JobRun

MAX_ID = 2**62


@require_GET
@vary_on_headers("HX-Request")
def run_list(request: HttpRequest, owner: str) -> HttpResponse:
    """A page of job runs, newest first, narrowed by search and tag."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    search = request.GET.get("q", "").replace("\0", "").strip()[:200]
    tag = request.GET.get("tag", "")
    before = request.GET.get("before", "")
    page = queries.run_page(
        organization,
        search=search,
        tag=tag,
        before=min(int(before), MAX_ID) if before.isascii() and before.isdecimal() and len(before) < 20 else None,
    )
    chosen = {"q": search, "tag": tag}
    context = {
        "organization": organization,
        "page": page,
        "search": search,
        "tag": tag,
        "tags": [
            {"label": label, "query": _query({**chosen, "tag": value}), "active": value == tag}
            for value, (label, _) in queries.RUN_TAGS.items()
        ],
        "next_query": _query({**chosen, "before": str(page.next_before)}) if page.next_before else "",
    }
    narrow = request.htmx and request.htmx.target == "runs"  # type: ignore[attr-defined]
    return render(request, "runners/runs.html#runs" if narrow else "runners/runs.html", context)


@require_GET
def run(request: HttpRequest, owner: str, run_id: int) -> HttpResponse:
    """One job run: the job, the policy and version that it got, and why that one."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    found = JobRun.objects.filter(organization=organization, pk=min(run_id, MAX_ID)).first()
    if found is None:
        raise Http404("This organization has no such run.")
    context = {
        "organization": organization,
        "run": found,
        "policy": Policy.objects.filter(organization=organization, pk=found.policy_id or 0).first(),
        "scope": Scope.from_key(found.scope_key) if found.scope_key else None,
        "others": _others(found),
    }
    return render(request, "runners/run.html", context)


def _others(run: JobRun) -> list[JobRun]:
    """The other jobs of the same workflow run."""
    if not run.run_id:
        return []
    rows = JobRun.objects.filter(organization=run.organization_id, run_id=run.run_id).exclude(pk=run.pk)
    return list(rows.order_by("-pk")[:50])


def _query(values: dict[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})
