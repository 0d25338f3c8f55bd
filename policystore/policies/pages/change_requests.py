"""Changes that wait for a second person, and the setting that makes them wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models.fields.json import KT
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.deprecation import MiddlewareMixin
from django.views.decorators.http import require_GET, require_http_methods

from policystore.accounts import access, sidebar
from policystore.accounts.models import Actor
from policystore.inventory.models import Organization
from policystore.policies.approvals import requests as change_requests
from policystore.policies.approvals.commands import (
    LimitFourEyesToKeys,
    NeedsApproval,
    SwitchOffFourEyes,
    switch_on_four_eyes,
)
from policystore.policies.errors import TooFewApprovers
from policystore.policies.models import Attachment, ChangeRequest, FourEyes
from policystore.policy_language.diff import side_by_side
from policystore.policy_language.scopes import Scope
from policystore.web.pagination import newest_first

PER_PAGE = 50
# A page that only reads has little time. What reaches more policies is shown as it was requested; an approval of that
# is refused if it has changed since, and the answer shows it as it is.
PREVIEWED_POLICIES = 20
TABS = {"": "Open", "decided": "Decided"}
_REFUSALS = {"decline": change_requests.decline, "withdraw": change_requests.withdraw}
_SWITCHES: Mapping[str, tuple[Callable[[Organization, Actor], None], str]] = {
    "0": (lambda at, by: SwitchOffFourEyes(organization=at).apply(by=by), "Four eyes are off."),
    "1": (lambda at, by: switch_on_four_eyes(organization=at, by=by), "Four eyes are on."),
    "keys": (lambda at, by: LimitFourEyesToKeys(organization=at).apply(by=by), "Four eyes are on for management keys."),
}

sidebar.COUNTS["policies:change-requests"] = change_requests.open_requests


@dataclass(frozen=True, slots=True)
class Row:
    """A request and what its change is called."""

    request: ChangeRequest
    label: str


@require_GET
def request_list(request: HttpRequest, owner: str) -> HttpResponse:
    """A page of requests, newest first: the open ones, or the others."""
    organization = access.get_organization(request, owner, "audit_log.view_historyevent")
    tab = request.GET.get("show", "")
    open_ones = {"status": ChangeRequest.Status.OPEN}
    rows = ChangeRequest.objects.filter(organization=organization).defer("payload", "shown")
    rows = rows.annotate(host=KT("payload__host"))
    rows = rows.exclude(**open_ones) if tab == "decided" else rows.filter(**open_ones)
    page = newest_first(rows, size=PER_PAGE, before=request.GET.get("before", ""))
    context = {
        "organization": organization,
        "rows": [Row(row, change_requests.label_of(row)) for row in page.rows],
        "tabs": [{"label": label, "query": f"?show={name}", "active": name == tab} for name, label in TABS.items()],
        "tab": tab,
        "next_cursor": page.next_cursor,
        "current": FourEyes.objects.filter(organization=organization).first(),
    }
    return render(request, "policies/change_requests.html", context)


@require_http_methods(["GET", "POST"])
def change_request(request: HttpRequest, owner: str, request_id: int) -> HttpResponse:
    """A change request: its effect, and the decision."""
    organization = access.get_organization(request, owner, "audit_log.view_historyevent")
    found = _found(organization, request_id)
    if request.method != "POST":
        return _page(request, organization, found)
    access.get_organization(request, owner, change_requests.permission_of(found))
    decision, by = request.POST.get("decision", ""), access.actor(request)
    comment = request.POST.get("comment", "")
    try:
        if decision == "approve":
            digest = request.POST.get("digest", "")
            settled = change_requests.approve(request=found, by=by, digest=digest, comment=comment)
        elif decision in _REFUSALS:
            settled = _REFUSALS[decision](request=found, by=by, comment=comment)
        else:
            return _page(request, organization, found, refusal="Approve, decline or withdraw the request.", status=422)
    except change_requests.CannotDecide as refusal:
        return _page(request, organization, _found(organization, request_id), refusal=str(refusal), status=409)
    messages.success(request, f"The request is {settled.get_status_display().lower()}.")
    return redirect("policies:change-requests", organization.key)


@require_http_methods(["GET", "POST"])
def four_eyes_setting(request: HttpRequest, owner: str) -> HttpResponse:
    """Switch four eyes on or off for the organization."""
    permission = "policies.change_foureyes" if request.method == "POST" else "policies.view_foureyes"
    organization = access.get_organization(request, owner, permission)
    if request.method == "POST":
        switch, confirmation = _SWITCHES.get(request.POST.get("on", ""), _SWITCHES["0"])
        try:
            switch(organization, access.actor(request))
        except TooFewApprovers as refusal:
            return _four_eyes_page(request, organization, refusal=str(refusal), status=422)
        messages.success(request, confirmation)
        return redirect("four-eyes", organization.key)
    return _four_eyes_page(request, organization)


def _four_eyes_page(
    request: HttpRequest, organization: Organization, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    current = FourEyes.objects.filter(organization=organization).first()
    context = {"organization": organization, "current": current, "refusal": refusal}
    return render(request, "policies/four_eyes.html", context, status=status)


def _found(organization: Organization, request_id: int) -> ChangeRequest:
    return get_object_or_404(ChangeRequest, organization=organization, pk=request_id)


def _page(
    request: HttpRequest, organization: Organization, found: ChangeRequest, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    by = access.actor(request)
    reach = len(found.shown.get("policies", ())) + found.shown.get("more", 0)
    is_live = found.is_open and (request.method == "POST" or reach <= PREVIEWED_POLICIES)
    preview = change_requests.preview(request=found) if is_live else None
    effect = preview.effect if preview else None
    shown = effect.shown if effect else found.shown
    context = {
        "organization": organization,
        "waiting": found,
        "label": change_requests.label_of(found),
        "effect": shown,
        "digest": effect.digest if effect else found.digest,
        "is_as_requested": found.is_open and not is_live,
        "has_changed": effect is not None and effect.digest != found.digest,
        "obstacle": change_requests.cannot_be_made(preview.refusal) if preview and preview.refusal else "",
        "rows": side_by_side(*shown["texts"]) if shown.get("texts") else [],
        "scopes": [_ScopeRow(Scope.from_key(row["key"]), row) for row in shown.get("scopes", [])],
        "is_mine": change_requests.is_from(found, by),
        "bar": change_requests.bar_of(found, by),
        "makers": change_requests.makers_of_key(found),
        "may_decide": request.user.has_perm(change_requests.permission_of(found), organization),
        "refusal": refusal,
        **_impact_of(shown),
    }
    return render(request, "policies/change_request.html", context, status=status)


@dataclass(frozen=True, slots=True)
class _ScopeRow:
    """A scope that changes, and in `row` which policy its jobs get before and after."""

    scope: Scope
    row: Mapping[str, str]


def _impact_of(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the impact: a text, over a canary scope where only canaries get it, or changed scopes."""
    subject: Mapping[str, Any] = next(iter(shown.get("policies", [])), {})
    staged = subject.get("staged") or {}
    canaries = staged.get("canaries_added") or staged.get("canaries") or [] if staged.get("is_changed") else []
    policy_id = subject.get("id")
    held = Attachment.objects.filter(policy=policy_id).values_list("scope_key", flat=True) if policy_id else ()
    changed = [row["key"] for row in shown.get("scopes", [])]
    return {
        "impact_text": shown["texts"][1] if shown.get("texts") else "",
        "impact_over": canaries[0] if canaries else "",
        "added": [Scope.from_key(key) for key in changed if key not in held],
        "removed": [Scope.from_key(key) for key in changed if key in held],
    }


class FourEyesMiddleware(MiddlewareMixin):
    """Redirects to the change request when a view raises NeedsApproval."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Store the change. Its own transaction was rolled back."""
        if not isinstance(exception, NeedsApproval):
            return None
        waiting = change_requests.ask(change=exception.change, by=access.actor(request))
        messages.info(request, "Nothing is changed yet: a second person has to approve this.")
        return redirect("policies:change-request", waiting.organization.key, waiting.pk)
