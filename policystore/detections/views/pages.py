"""Harden Runner → Detections."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.detections import queries
from policystore.detections.actions import detections as actions
from policystore.detections.forms import StatusForm
from policystore.detections.models import Detection
from policystore.inventory.models import Organization
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic.exemptions import exempted_from

TABS = (
    ("new", "New"),
    ("resolved", "Resolved"),
    ("suppressed", "Suppressed"),
    ("unverified", "Unverified"),
    ("all", "All"),
)


@require_GET
@vary_on_headers("HX-Request")
def detection_list(request: HttpRequest, owner: str) -> HttpResponse:
    """A page of detections, newest first, narrowed by status, id and search."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    chosen = {name: request.GET.get(name, "").replace("\0", "").strip()[:200] for name in ("q", "id", "status")}
    status = chosen["status"] or "new"
    page = queries.page(
        organization,
        status=status,
        detection_id=chosen["id"],
        search=chosen["q"],
        before=request.GET.get("before", ""),
    )
    context = {
        "organization": organization,
        "page": page,
        "search": chosen["q"],
        "chosen_id": chosen["id"],
        "status": status,
        "ids": queries.ids_seen(organization),
        "tabs": [
            {"label": label, "query": _query({**chosen, "status": value}), "active": value == status}
            for value, label in TABS
        ],
        "next_query": _query({**chosen, "before": page.next_cursor}) if page.next_cursor else "",
    }
    narrow = request.htmx and request.htmx.target == "detections"  # type: ignore[attr-defined]
    return render(request, "detections/list.html#detections" if narrow else "detections/list.html", context)


@require_GET
def detection(request: HttpRequest, owner: str, detection_id: int) -> HttpResponse:
    """One detection: what, where, under which policy, and what was done about it."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    found = _get(organization, detection_id)
    run = found.job_run
    policy = Policy.objects.filter(organization=organization, pk=found.policy_id or 0).first()
    context = {
        "organization": organization,
        "detection": found,
        "run": run,
        "policy": policy,
        "exempted_from": None if found.is_lockdown else exempted_from(run),
        "suppress_query": _suppress_query(organization, found),
    }
    return render(request, "detections/detection.html", context)


@require_GET
@vary_on_headers("HX-Request")
def of_run(request: HttpRequest, owner: str, run_id: int) -> HttpResponse:
    """The detections of one job; asked by htmx, the card that the job's page shows."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    run = get_object_or_404(JobRun, organization=organization, pk=run_id)
    context = {"organization": organization, "run": run, "detections": queries.of_run(run)}
    narrow = getattr(request, "htmx", False)
    return render(request, "detections/of_run.html#card" if narrow else "detections/of_run.html", context)


@require_POST
def change_status(request: HttpRequest, owner: str, detection_id: int) -> HttpResponse:
    """Resolve a detection, or make it new again."""
    organization = access.get_organization(request, owner, "detections.change_detection")
    found = _get(organization, detection_id)
    _change(request, [found])
    return redirect("detections:detection", organization.key, found.pk)


@require_POST
def change_chosen(request: HttpRequest, owner: str) -> HttpResponse:
    """The same for all that were ticked on the page of detections; leads back to it."""
    organization = access.get_organization(request, owner, "detections.change_detection")
    found = queries.chosen(organization, request.POST.getlist("detection"))
    if found:
        _change(request, found)
    else:
        messages.error(request, "Tick at least one detection first.")
    wanted = {name: request.POST.get(name, "")[:200] for name in ("q", "id")}
    shown = request.POST.get("shown", "")[:20]
    return redirect(reverse("detections:list", args=[organization.key]) + _query({**wanted, "status": shown}))


def _change(request: HttpRequest, found: list[Detection]) -> None:
    form = StatusForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Choose new or resolved; to suppress, make a suppression rule.")
        return
    status = form.cleaned_data["status"]
    changed = actions.change_status(detections=found, status=status, by=access.actor(request))
    subject = "The detection is" if changed == 1 else f"{changed} detections are"
    messages.success(request, f"{subject} {status} now." if changed else f"Nothing changed: {status} already.")


def _get(organization: Organization, detection_id: int) -> Detection:
    rows = Detection.objects.select_related("job_run", "rule")
    return get_object_or_404(rows, organization=organization, pk=detection_id)


def _suppress_query(organization: Organization, found: Detection) -> str:
    """A rule that fits this detection and its repository, ready to be narrowed or widened."""
    try:
        scope_key = Scope.for_repository(organization.key, found.job_run.repository).key
    except ValueError:
        scope_key = ""
    values = {
        "detection_id": found.detection_id,
        "scope_key": scope_key,
        "destination": found.endpoint,
        "process": found.process,
    }
    return f"{reverse('detections:new-rule', args=[organization.key])}?{urlencode(values)}"


def _query(values: dict[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})
