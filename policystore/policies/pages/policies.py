"""The list of policies, and the page of a policy with its exceptions."""

from __future__ import annotations

import json
from functools import partial
from operator import attrgetter

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies import break_glass, compiler, endpoint_sets, exceptions
from policystore.policies.as_code import apply as managing
from policystore.policies.as_code import plan as as_code
from policystore.policies.core import queries
from policystore.policies.errors import InvalidException
from policystore.policies.models import Policy, PolicyException
from policystore.policies.pages.forms import ExceptionForm
from policystore.policies.pages.get_or_404 import get_history_subject, get_policy, search_text
from policystore.policy_language.document import read_reply
from policystore.policy_language.risks import Risk, risk_of
from policystore.policy_language.scopes import places
from policystore.web import csv_export
from policystore.web.pagination import EXPORTED_AT_A_TIME, every_row, query_string

SCOPES_SHOWN = 200
COUNTERS = {"": "Total", "block": "Block", "audit": "Audit", "unattached": "Not attached", "risky": "Risky"}
EXPORTED: csv_export.Columns[queries.PolicyRow] = {
    "name": attrgetter("policy.name"),
    "description": attrgetter("policy.description"),
    "mode": attrgetter("policy.egress_policy"),
    "endpoints": attrgetter("policy.endpoint_count"),
    "risky_endpoints": attrgetter("policy.risk_count"),
    "attached_to": attrgetter("attached_to"),
    "managed_as_code": attrgetter("is_managed"),
    "version": attrgetter("policy.version"),
    "changed_at": attrgetter("policy.changed_at"),
    "changed_by": attrgetter("policy.changed_by"),
}
COLUMNS = (("name", "Name"), ("endpoints", "Endpoints"), ("attached", "Attached to"), ("-changed", "Last change"))


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """The policies of the person's first organization."""
    organization = access.first_organization(request)
    if organization is None:
        return render(request, "policies/no_organization.html")
    return redirect("policies:list", organization.key)


@require_GET
@vary_on_headers("HX-Request")
def policy_list(request: HttpRequest, owner: str) -> HttpResponseBase:
    """A page of policies, filtered by search and counter, sorted; or all of these as CSV."""
    organization = access.get_organization(request, owner, "policies.view_policy")
    if request.htmx and request.htmx.target == "first-steps":  # type: ignore[attr-defined]
        return render(request, "policies/list.html#first_steps", {"organization": organization})
    chosen = {name: search_text(request.GET, name) for name in ("q", "show", "sort")}
    sort = chosen["sort"] if chosen["sort"].removeprefix("-") in queries.SORT_COLUMNS else queries.DEFAULT_SORT
    read = partial(queries.list_page, organization, search=chosen["q"], show=chosen["show"], sort=sort)
    if csv_export.is_requested(request):
        rows = every_row(lambda cursor: read(after=cursor, size=EXPORTED_AT_A_TIME))
        return csv_export.download(f"policies-{organization.key}", EXPORTED, rows)
    page = read(after=request.GET.get("after", ""), before=request.GET.get("before", ""))
    counters = _counters(organization, chosen)
    context = {
        "organization": organization,
        "page": page,
        "search": chosen["q"],
        "show": chosen["show"],
        "sort": sort,
        "counters": counters,
        "total": next((counter["number"] for counter in counters if counter["active"]), 0),
        "columns": [_column(chosen, sort, name, label) for name, label in COLUMNS],
        "next_query": query_string({**chosen, "after": page.next_cursor}) if page.next_cursor else "",
        "previous_query": query_string({**chosen, "before": page.previous_cursor}) if page.previous_cursor else "",
    }
    narrow = request.htmx and request.htmx.target == "policies"  # type: ignore[attr-defined]
    return render(request, "policies/list.html#policies" if narrow else "policies/list.html", context)


def _counters(organization: Organization, chosen: dict[str, str]) -> list[dict[str, object]]:
    counted = queries.counters(organization, chosen["q"])
    return [
        {
            "label": label,
            "number": counted[show or "total"],
            "query": query_string({**chosen, "show": show}),
            "active": chosen["show"] == show,
        }
        for show, label in COUNTERS.items()
    ]


def _column(chosen: dict[str, str], sort: str, name: str, label: str) -> dict[str, object]:
    plain = name.removeprefix("-")
    active = sort.removeprefix("-") == plain
    flipped = plain if sort.startswith("-") else f"-{plain}"
    return {
        "label": label,
        "query": query_string({**chosen, "sort": flipped if active else name}),
        "direction": ("descending" if sort.startswith("-") else "ascending") if active else "none",
    }


@require_GET
def view(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """A policy, read-only: its text, what runners get, and where it is attached.

    The address of a deleted policy redirects to its history, because runs and detections still link to the policy.
    """
    try:
        policy = get_policy(request, owner, policy_id, "policies.view_policy")
    except Http404:
        subject = get_history_subject(request, owner, policy_id, "audit_log.view_historyevent")
        return redirect("policies:history", subject.organization.key, policy_id)
    return policy_page(request, policy)


def policy_page(
    request: HttpRequest, policy: Policy, exception_form: ExceptionForm | None = None, *, status: int = 200
) -> HttpResponse:
    """The page of a policy, with a form to add an exception as it was filled in."""
    reply = read_reply(policy.served_reply)
    attachments = queries.attachments_of(policy)
    counts = queries.attachment_counts(policy)
    checked = compiler.check(policy.organization, policy.text, scope_types=set(counts))
    context = {
        "organization": policy.organization,
        "policy": policy,
        "places": places(counts),
        "lines": policy.text.splitlines(),
        "reply": json.dumps(reply, indent=2),
        "lockdown": reply.get("lockdown"),
        "drift": as_code.drift_of(policy),
        "integrity_problems": queries.integrity_problems(policy.organization, policy),
        "staged": queries.staged_of(policy),
        "break_glasses": break_glass.touching(policy),
        "attachments": attachments[:SCOPES_SHOWN],
        "more_attachments": max(policy.attachment_count - SCOPES_SHOWN, 0),
        "exceptions": queries.exceptions_of(policy),
        "exception_form": exception_form or ExceptionForm(initial={"owner": access.actor(request).name}),
        "members": queries.members(policy.organization),
        "sets": endpoint_sets.sets_in(policy),
        "problems": [problem for problem in checked.problems if not problem.is_risk],
        "risks": _risks(reply["allowed_endpoints"]),
    }
    return render(request, "policies/view.html", context, status=status)


def _risks(endpoints: list[str]) -> list[tuple[str, Risk]]:
    """The endpoints that runners get where data could be carried out, and how."""
    found = ((endpoint, risk_of(endpoint)) for endpoint in endpoints)
    return [(endpoint, risk) for endpoint, risk in found if risk is not None]


@require_http_methods(["GET", "POST"])
def managed(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """The drift from the code; POST releases the policy from it."""
    permission = "policies.change_policy" if request.method == "POST" else "policies.view_policy"
    policy = get_policy(request, owner, policy_id, permission)
    if request.method == "POST":
        managing.release(policy=policy, by=access.actor(request))
        messages.success(request, f"{policy.name} is no longer managed as code.")
        return redirect("policies:view", policy.organization.key, policy.pk)
    drift = as_code.drift_of(policy)
    if drift is None:
        raise Http404("This policy is not managed as code.")
    context = {"organization": policy.organization, "policy": policy, "drift": drift}
    return render(request, "policies/managed.html", context)


@require_POST
def add_exception(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Allow one more endpoint until a time."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    form = ExceptionForm(request.POST)
    if form.is_valid():
        try:
            added = exceptions.AddException(policy=policy, **form.cleaned_data).apply(by=access.actor(request))
        except InvalidException as refusal:
            form.add_error(refusal.field, str(refusal))
        else:
            until = f"{added.expires_at:%Y-%m-%d %H:%M} UTC"
            messages.success(request, f"Jobs that start from now on may reach {added.endpoint}, until {until}.")
            return redirect("policies:view", policy.organization.key, policy.pk)
    return policy_page(request, policy, form, status=422)


@require_POST
def end_exception(request: HttpRequest, owner: str, policy_id: int, exception_id: int) -> HttpResponse:
    """End an exception now."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    found = get_object_or_404(PolicyException, pk=exception_id, policy=policy)
    found.policy = policy
    exceptions.end(exception=found, by=access.actor(request))
    messages.success(request, f"Jobs that start from now on get {policy.name} without the exception {found.endpoint}.")
    return redirect("policies:view", policy.organization.key, policy.pk)
