"""Settings → Never-allow hosts. A change that reaches policies is shown before it is made."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies import never_allow
from policystore.policies.compiler import Effect
from policystore.policies.errors import InvalidNeverAllow, NeverAllowGone, PoliciesWouldChange
from policystore.policies.models import NeverAllowHost
from policystore.policies.pages.forms import AgreedForm, NeverAllowForm, review_context
from policystore.policy_language.never_allow import let_through_anyway

ENTRIES_PER_PAGE = 100


@require_http_methods(["GET", "POST"])
def hosts(request: HttpRequest, owner: str) -> HttpResponse:
    """The organization's never-allow hosts; POST adds one, after a look at the policies that lose endpoints."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "policies.view_neverallowhost")
        return _page(request, organization, NeverAllowForm())
    organization = access.get_organization(request, owner, "policies.change_neverallowhost")
    form = NeverAllowForm(request.POST)
    if not form.is_valid():
        return _page(request, organization, form, status=422)
    values = {name: form.cleaned_data[name] for name in ("host", "reason")}
    try:
        if "confirm" not in request.POST:
            effects = never_allow.preview_add(organization=organization, **values)
            if effects:
                return _review(request, organization, effects, {**values, "adding": True})
        return _add(request, organization, form)
    except PoliciesWouldChange as refusal:
        effects = never_allow.preview_add(organization=organization, **values)
        return _review(request, organization, effects, {**values, "adding": True, "refusal": str(refusal)}, status=409)
    except InvalidNeverAllow as refusal:
        form.add_error(refusal.field, str(refusal))
        return _page(request, organization, form, status=422)


@require_POST
def remove(request: HttpRequest, owner: str, entry_id: int) -> HttpResponse:
    """Take a host off the list, after a look at the policies that get endpoints back."""
    organization = access.get_organization(request, owner, "policies.change_neverallowhost")
    rows = NeverAllowHost.objects.select_related("organization")
    entry = get_object_or_404(rows, pk=entry_id, organization=organization)
    form, context = AgreedForm(request.POST), {"host": entry.host, "reason": entry.reason, "entry": entry}
    agreed = form.cleaned_data["agreed"] if form.is_valid() else []
    try:
        effects = [] if "confirm" in request.POST else never_allow.preview_remove(entry=entry)
        if effects:
            return _review(request, organization, effects, context)
        never_allow.RemoveNeverAllow(entry=entry, agreed=agreed).apply(by=access.actor(request))
        messages.success(request, f"Policies decide about {entry.host} again.")
    except PoliciesWouldChange as refusal:
        effects = never_allow.preview_remove(entry=entry)
        return _review(request, organization, effects, {**context, "refusal": str(refusal)}, status=409)
    except NeverAllowGone as gone:
        messages.info(request, str(gone))
    return redirect("never-allow:list", organization.key)


def _add(request: HttpRequest, organization: Organization, form: NeverAllowForm) -> HttpResponse:
    values = form.cleaned_data
    entry, effects = never_allow.add(organization=organization, by=access.actor(request), **values)
    count = len(effects)
    recompiled = f" {count} polic{'y has' if count == 1 else 'ies have'} a new version without it." if effects else ""
    messages.success(request, f"No policy lets {entry.host} through from now on.{recompiled}")
    anyway = let_through_anyway(entry.host)
    if anyway:
        messages.warning(request, f"The agent always allows {', '.join(anyway)}, whatever a policy says.")
    return redirect("never-allow:list", organization.key)


def _review(
    request: HttpRequest,
    organization: Organization,
    effects: list[Effect],
    context: dict[str, object],
    *,
    status: int = 200,
) -> HttpResponse:
    shown = {"organization": organization, **review_context(effects), **context}
    return render(request, "policies/never_allow_review.html", shown, status=status)


def _page(request: HttpRequest, organization: Organization, form: NeverAllowForm, *, status: int = 200) -> HttpResponse:
    rows = NeverAllowHost.objects.filter(organization=organization).order_by("host")
    page = Paginator(rows, ENTRIES_PER_PAGE).get_page(request.GET.get("page"))
    entries = [(entry, let_through_anyway(entry.host)) for entry in page]
    context = {"organization": organization, "page": page, "entries": entries, "form": form}
    return render(request, "policies/never_allow.html", context, status=status)
