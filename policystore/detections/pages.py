"""Harden Runner → Detections, and suppression rules."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access, sidebar
from policystore.detections import actions, queries, rules
from policystore.detections.models import Detection, SuppressionRule
from policystore.inventory.models import Organization
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from policystore.runners.explain import exempted_from
from policystore.runners.models import JobRun
from policystore.web import csv_export
from policystore.web.json_api import storable
from policystore.web.pagination import (
    EXPORTED_AT_A_TIME,
    ROWS_LOOKED_THROUGH,
    Page,
    every_row,
    links,
    query_string,
    render_list,
    tabs,
)

PREVIEW_SHOWN = 20
FILTERS = ("q", "id", "endpoint")
RULE_FIELDS = ("detection_id", "scope_key", "destination", "process")
TABS = (
    ("new", "New"),
    ("resolved", "Resolved"),
    ("suppressed", "Suppressed"),
    ("unverified", "Unverified"),
    ("all", "All"),
)

EXPORTED: csv_export.Columns[Detection] = {
    "at": attrgetter("at"),
    "detection_id": attrgetter("detection_id"),
    "detail": attrgetter("detail"),
    "endpoint": attrgetter("endpoint"),
    "process": attrgetter("process"),
    "repository": attrgetter("job_run.repository"),
    "workflow": attrgetter("job_run.workflow"),
    "job": attrgetter("job_run.job"),
    "run_id": attrgetter("job_run.run_id"),
    "policy": attrgetter("policy_name"),
    "policy_version": attrgetter("policy_version"),
    "status": attrgetter("status"),
    "changed_at": attrgetter("changed_at"),
    "changed_by": attrgetter("changed_by"),
}

sidebar.COUNTS["detections:list"] = queries.new_detections


class StatusForm(forms.Form):
    """A detection's new status. Suppressing is done by rules."""

    status = forms.ChoiceField(choices=[(s.value, s.label) for s in (Detection.Status.NEW, Detection.Status.RESOLVED)])


class RuleForm(forms.Form):
    """What a suppression rule matches, and why."""

    detection_id = forms.CharField(max_length=100, required=False, label="Detection id")
    scope_key = forms.CharField(max_length=1100, required=False, label="Scope")
    destination = forms.CharField(max_length=255, required=False, label="Destination (* for any characters)")
    process = forms.CharField(max_length=255, required=False, label="Process")
    reason = forms.CharField(max_length=500, label="Reason")


@require_GET
@vary_on_headers("HX-Request")
def detection_list(request: HttpRequest, owner: str) -> HttpResponseBase:
    """A page of detections, newest first, filtered and perhaps grouped by id and endpoint; or all of them as CSV."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    chosen = {name: storable(request.GET.get(name, "")).strip()[:300] for name in (*FILTERS, "status", "by")}
    status = chosen["status"] or "new"
    filters: dict[str, Any] = {
        "status": status,
        "detection_id": chosen["id"],
        "endpoint": chosen["endpoint"],
        "search": chosen["q"],
    }
    read = partial(queries.page, organization, **filters)
    if csv_export.is_requested(request):
        rows = every_row(lambda cursor: read(before=cursor, size=EXPORTED_AT_A_TIME))
        return csv_export.download(f"detections-{organization.key}", EXPORTED, rows)
    before = request.GET.get("before", "")
    page: Page[Any]
    page = queries.group_page(organization, **filters, before=before) if chosen["by"] else read(before=before)
    context = {
        "organization": organization,
        "page": page,
        "grouped": ROWS_LOOKED_THROUGH,
        "by": chosen["by"],
        "endpoint": chosen["endpoint"],
        "has_runs": bool(page.rows) or JobRun.objects.filter(organization=organization).exists(),
        "search": chosen["q"],
        "chosen_id": chosen["id"],
        "status": status,
        "ids": queries.ids_seen(organization),
        "tabs": tabs(TABS, {**chosen, "status": status}, "status"),
        **links(page, chosen),
    }
    return render_list(request, "detections/list.html", "detections", context)


@require_GET
def detection(request: HttpRequest, owner: str, detection_id: int) -> HttpResponse:
    """One detection: what was detected, where, under which policy, and its status."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    shown = _get(organization, detection_id)
    run = shown.job_run
    policy = Policy.objects.filter(organization=organization, pk=shown.policy_id or 0).first()
    context = {
        "organization": organization,
        "detection": shown,
        "run": run,
        "policy": policy,
        "exempted_from": None if shown.is_lockdown else exempted_from(run),
        "suppress_query": _suppress_query(organization, shown),
    }
    return render(request, "detections/detection.html", context)


@require_GET
@vary_on_headers("HX-Request")
def of_run(request: HttpRequest, owner: str, run_id: int) -> HttpResponse:
    """The detections of one job: a page, or for htmx the card on the job's page."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    run = get_object_or_404(JobRun, organization=organization, pk=run_id)
    context = {"organization": organization, "run": run, "detections": queries.of_run(run)}
    narrow = getattr(request, "htmx", False)
    return render(request, "detections/of_run.html#card" if narrow else "detections/of_run.html", context)


@require_POST
def change_status(request: HttpRequest, owner: str, detection_id: int) -> HttpResponse:
    """Resolve or reopen a detection."""
    organization = access.get_organization(request, owner, "detections.change_detection")
    changed = _get(organization, detection_id)
    _change(request, [changed])
    return redirect("detections:detection", organization.key, changed.pk)


@require_POST
def change_chosen(request: HttpRequest, owner: str) -> HttpResponse:
    """Resolve or reopen the detections that are selected on the list."""
    organization = access.get_organization(request, owner, "detections.change_detection")
    ticked = queries.chosen(organization, request.POST.getlist("detection"))
    if ticked:
        _change(request, ticked)
    else:
        messages.error(request, "Select at least one detection first.")
    filters = {name: request.POST.get(name, "")[:300] for name in FILTERS}
    status = request.POST.get("shown", "")[:20]
    return redirect(reverse("detections:list", args=[organization.key]) + query_string({**filters, "status": status}))


@require_GET
def rule_list(request: HttpRequest, owner: str) -> HttpResponse:
    """The organization's rules, newest first."""
    organization = access.get_organization(request, owner, "detections.view_detection")
    rows = SuppressionRule.objects.filter(organization=organization).annotate(suppressed=Count("detections"))
    return render(request, "detections/rules.html", {"organization": organization, "rules": rows})


@require_http_methods(["GET", "POST"])
def new_rule(request: HttpRequest, owner: str) -> HttpResponse:
    """A form for a rule, a preview of what it would have suppressed, and saving it."""
    organization = access.get_organization(request, owner, "detections.change_suppressionrule")
    initial = {name: request.GET.get(name, "")[:1100] for name in RULE_FIELDS}
    form = RuleForm(request.POST if request.method == "POST" else None, initial=initial)
    context: dict[str, object] = {"organization": organization, "form": form}
    if form.is_valid():
        try:
            rule = rules.draft(organization=organization, **form.cleaned_data)
        except rules.RuleRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            if request.POST.get("action") == "save":
                rules.create(rule=rule, by=access.actor(request))
                messages.success(request, "The rule was saved. Matching detections are suppressed from now on.")
                return redirect("detections:rules", organization.key)
            matching = rules.preview(rule)
            context |= {"fitting": matching[:PREVIEW_SHOWN], "count": len(matching), "most": rules.PREVIEWED}
    return render(request, "detections/new_rule.html", context, status=422 if form.errors else 200)


@require_POST
def remove_rule(request: HttpRequest, owner: str, rule_id: int) -> HttpResponse:
    """Remove a rule and reopen the detections that it suppressed."""
    organization = access.get_organization(request, owner, "detections.change_suppressionrule")
    rule = get_object_or_404(SuppressionRule, organization=organization, pk=rule_id)
    rules.remove(rule=rule, by=access.actor(request))
    messages.success(request, "The rule was removed. The detections that it suppressed are open again.")
    return redirect("detections:rules", organization.key)


def _change(request: HttpRequest, detections: list[Detection]) -> None:
    form = StatusForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Choose new or resolved. To suppress a detection, add a suppression rule.")
        return
    status = form.cleaned_data["status"]
    changed = actions.change_status(detections=detections, status=status, by=access.actor(request))
    subject = "The detection is" if changed == 1 else f"{changed} detections are"
    messages.success(request, f"{subject} now {status}." if changed else f"Nothing changed: already {status}.")


def _get(organization: Organization, detection_id: int) -> Detection:
    rows = Detection.objects.select_related("job_run", "rule")
    return get_object_or_404(rows, organization=organization, pk=detection_id)


def _suppress_query(organization: Organization, detection: Detection) -> str:
    """The URL of a new rule that matches this detection in its repository, to be edited."""
    try:
        scope_key = Scope.for_repository(organization.key, detection.job_run.repository).key
    except ValueError:
        scope_key = ""
    values = {
        "detection_id": detection.detection_id,
        "scope_key": scope_key,
        "destination": detection.endpoint,
        "process": detection.process,
    }
    return f"{reverse('detections:new-rule', args=[organization.key])}?{urlencode(values)}"
