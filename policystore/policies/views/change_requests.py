"""Changes that wait for a second person, and the setting that makes them wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from policystore import row_ids
from policystore.accounts import access
from policystore.documents.diff import DiffRow, side_by_side
from policystore.documents.scopes import Scope
from policystore.inventory.models import Organization
from policystore.policies import change_verbs
from policystore.policies.actions import change_requests, four_eyes
from policystore.policies.errors import TooFewApprovers
from policystore.policies.models import ChangeRequest, FourEyes

PER_PAGE = 50
TABS = {"": "Open", "decided": "Decided"}


@dataclass(frozen=True, slots=True)
class Row:
    """A request and what its change is called."""

    request: ChangeRequest
    label: str


@require_GET
def request_list(request: HttpRequest, owner: str) -> HttpResponse:
    """A page of requests, newest first: the open ones, or the others."""
    organization = access.get_organization(request, owner, "policies.view_historyevent")
    tab = request.GET.get("show", "")
    open_ones = {"status": ChangeRequest.Status.OPEN}
    rows = ChangeRequest.objects.filter(organization=organization).order_by("-pk").defer("payload", "shown")
    rows = rows.exclude(**open_ones) if tab == "decided" else rows.filter(**open_ones)
    before = row_ids.read(request.GET.get("before", ""))
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows[: PER_PAGE + 1])
    context = {
        "organization": organization,
        "rows": [Row(row, change_verbs.label_of(row)) for row in found[:PER_PAGE]],
        "tabs": [{"label": label, "query": f"?show={name}", "active": name == tab} for name, label in TABS.items()],
        "tab": tab,
        "next_before": found[PER_PAGE - 1].pk if len(found) > PER_PAGE else None,
        "current": FourEyes.objects.filter(organization=organization).first(),
    }
    return render(request, "policies/change_requests.html", context)


@require_http_methods(["GET", "POST"])
def change_request(request: HttpRequest, owner: str, request_id: int) -> HttpResponse:
    """What would change, and the decision."""
    organization = access.get_organization(request, owner, "policies.view_historyevent")
    found = _found(organization, request_id)
    if request.method != "POST":
        return _page(request, organization, found)
    access.get_organization(request, owner, change_verbs.permission_of(found))
    decide = _DECISIONS.get(request.POST.get("decision", ""))
    if decide is None:
        return _page(request, organization, found, refusal="Approve, decline or withdraw the request.", status=422)
    try:
        settled = decide(request=found, by=access.actor(request), comment=request.POST.get("comment", ""))
    except change_requests.CannotDecide as refusal:
        return _page(request, organization, _found(organization, request_id), refusal=str(refusal), status=409)
    messages.success(request, f"The request is {settled.get_status_display().lower()}.")
    return redirect("policies:change-requests", organization.key)


_DECISIONS = {
    "approve": change_requests.approve,
    "decline": change_requests.decline,
    "withdraw": change_requests.withdraw,
}


@require_http_methods(["GET", "POST"])
def four_eyes_setting(request: HttpRequest, owner: str) -> HttpResponse:
    """Switch four eyes on or off for the organization."""
    permission = "policies.change_foureyes" if request.method == "POST" else "policies.view_foureyes"
    organization = access.get_organization(request, owner, permission)
    if request.method == "POST":
        switch, told = _SWITCHES.get(request.POST.get("on", ""), _SWITCHES["0"])
        try:
            switch(organization=organization, by=access.actor(request))
        except TooFewApprovers as refusal:
            return _four_eyes_page(request, organization, refusal=str(refusal), status=422)
        messages.success(request, told)
        return redirect("four-eyes", organization.key)
    return _four_eyes_page(request, organization)


def _four_eyes_page(
    request: HttpRequest, organization: Organization, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    current = FourEyes.objects.filter(organization=organization).first()
    context = {"organization": organization, "current": current, "refusal": refusal}
    return render(request, "policies/four_eyes.html", context, status=status)


_SWITCHES: Mapping[str, tuple[Callable[..., None], str]] = {
    "0": (four_eyes.switch_off, "Four eyes are off."),
    "1": (four_eyes.switch_on, "Four eyes are on."),
    "keys": (four_eyes.keys_alone, "Four eyes are on for what management keys ask for."),
}


def _found(organization: Organization, request_id: int) -> ChangeRequest:
    found = ChangeRequest.objects.filter(organization=organization, pk=request_id).first()
    if found is None:
        raise Http404("This organization has no such request.")
    return found


def _page(
    request: HttpRequest, organization: Organization, found: ChangeRequest, *, refusal: str = "", status: int = 200
) -> HttpResponse:
    by = access.actor(request)
    context = {
        "organization": organization,
        "waiting": found,
        "label": change_verbs.label_of(found),
        "rows": _rows(found),
        "added": [Scope.from_key(key) for key in found.shown.get("scopes_added", [])],
        "removed": [Scope.from_key(key) for key in found.shown.get("scopes_removed", [])],
        "replaced": sorted(set(found.shown.get("replaced", {}).values())),
        "is_mine": change_requests.is_from(found, by),
        "bar": change_requests.bar_of(found, by),
        "makers": change_requests.makers_of_key(found),
        "may_decide": request.user.has_perm(change_verbs.permission_of(found), organization),
        "refusal": refusal,
    }
    return render(request, "policies/change_request.html", context, status=status)


def _rows(found: ChangeRequest) -> list[DiffRow]:
    return side_by_side(found.shown.get("text_before", ""), found.shown.get("text_after", ""))
