"""Impact: what a draft or a change of scopes would do to the traffic of the last days, shown before it is saved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies.core import versions
from policystore.policies.models import Policy
from policystore.policies.pages.forms import sent_text
from policystore.policies.pages.get_or_404 import get_policy, policy_of
from policystore.policy_language.scopes import Scope
from policystore.traffic.impact import preview
from policystore.traffic.impact.bitmap_store import chosen_days
from policystore.web import pagination

CARRIED = ("name", "description", "text", "version", "policy")
UNREADABLE = "The policy has errors. Fix them to see its impact here."
GONE = "This policy has been deleted. If you save your text, it is saved as a new policy."
NOTHING_CHOSEN = "Choose scopes to add or remove to see the impact here."


class Refused(ValueError):
    """Nothing can be replayed. `str()` says why."""


@require_POST
@vary_on_headers("HX-Request")
def draft(request: HttpRequest, owner: str) -> HttpResponse:
    """The impact of saving the text in the editor. `impact_over` is a scope to try it at."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    context = _draft_context(request, organization)
    try:
        context["policy"] = _edited(organization, request.POST.get("policy", ""))
        impact = _replayed(context)
    except Refused as refusal:
        return _page(request, "draft", {**context, "refusal": str(refusal)}, status=422)
    return _page(request, "draft", {**context, "impact": impact})


@require_POST
@vary_on_headers("HX-Request")
def attach(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """The impact of adding scopes to a policy and removing others."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    chosen = {name: request.POST.getlist(name) for name in ("add", "remove")}
    days = chosen_days(request.POST.get("impact_days", ""))
    context = {"organization": policy.organization, "policy": policy, "chosen": chosen, "days": days}
    try:
        add, remove = (_scopes(policy.organization, keys) for keys in chosen.values())
    except Refused as refusal:
        return _page(request, "attach", {**context, "refusal": str(refusal)}, status=422)
    if not add and not remove:
        return _page(request, "attach", {**context, "refusal": NOTHING_CHOSEN})
    impact = preview.attachment(policy, add=add, remove=remove, days=days)
    return _page(request, "attach", {**context, "impact": impact})


@require_GET
@vary_on_headers("HX-Request")
def detach(request: HttpRequest, owner: str, policy_id: int, change: str) -> HttpResponse:
    """The impact of detaching a policy from all scopes, or of deleting it (`change`), which also detaches it."""
    policy = get_policy(request, owner, policy_id, f"policies.{'delete' if change == 'delete' else 'change'}_policy")
    impact = preview.detachment(policy, days=chosen_days(request.GET.get("impact_days", "")))
    context = {"organization": policy.organization, "policy": policy, "back": f"policies:{change}", "impact": impact}
    return _page(request, "detach", context)


def _draft_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    return {
        "organization": organization,
        "policy": None,
        "carried": {name: sent_text(request.POST, name) for name in CARRIED},
        "over": request.POST.get("impact_over", ""),
        "days": chosen_days(request.POST.get("impact_days", "")),
        # The editor shows the impact below its text, and adds endpoints without leaving the page.
        "in_place": "impact_in_place" in request.POST,
        # The editor of a staged version has no way to add endpoints.
        "adding": "" if "impact_read_only" in request.POST else "draft",
    }


def _edited(organization: Organization, text: str) -> Policy | None:
    """The policy with this id; None for a draft of a new one. Raises Http404, or Refused if it has been deleted."""
    policy_id = pagination.parse_row_id(text)
    if policy_id is None:
        return None
    try:
        return policy_of(organization, policy_id)
    except Http404:
        if versions.subject(organization, policy_id) is None:
            raise
        raise Refused(GONE) from None


def _replayed(context: dict[str, Any]) -> preview.DraftImpact:
    organization = context["organization"]
    over = _scopes(organization, filter(None, [context["over"]]))
    draft = preview.compile_draft(organization, context["carried"]["text"])
    if draft is None:
        raise Refused(UNREADABLE)
    return preview.replay_draft(draft, policy=context["policy"], days=context["days"], over=over[0] if over else None)


def _page(request: HttpRequest, kind: str, context: dict[str, object], *, status: int = 200) -> HttpResponse:
    """The whole page, or for htmx the fragment for the page where the change is made."""
    fragment = request.htmx  # type: ignore[attr-defined]
    name = f"traffic/impact_{kind}.html"
    return render(request, f"{name}#impact" if fragment else name, {**context, "is_page": not fragment}, status=status)


def _scopes(organization: Organization, keys: Iterable[str]) -> list[Scope]:
    """The scopes with these keys, without duplicates. Raises Refused if one is not a scope of the organization."""
    try:
        scopes = [Scope.from_key(key) for key in dict.fromkeys(keys)]
    except ValueError as error:
        raise Refused(str(error)) from error
    for scope in scopes:
        if scope.owner != organization.key:
            raise Refused(f"{scope.label} does not belong to {organization.login}.")
    return scopes
