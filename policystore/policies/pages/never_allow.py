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
from policystore.policies.compiler import PoliciesWouldChange
from policystore.policies.errors import InvalidNeverAllow, NeverAllowGone
from policystore.policies.models import NeverAllowHost
from policystore.policies.pages.forms import AgreedForm, NeverAllowForm
from policystore.policy_language.never_allow import let_through_anyway

ENTRIES_PER_PAGE = 50


@require_http_methods(["GET", "POST"])
def hosts(request: HttpRequest, owner: str) -> HttpResponse:
    """The organization's never-allow hosts; POST adds one, after a review of the policies that lose endpoints."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "policies.view_neverallowhost")
        return _page(request, organization, NeverAllowForm())
    organization = access.get_organization(request, owner, "policies.change_neverallowhost")
    form = NeverAllowForm(request.POST)
    if not form.is_valid():
        return _page(request, organization, form, status=422)
    try:
        return _add(request, organization, form)
    except PoliciesWouldChange as would_change:
        context = {"organization": organization, "adding": True}
        context |= {name: form.cleaned_data[name] for name in ("host", "reason")}
        return _review(request, form, would_change, context)
    except InvalidNeverAllow as refusal:
        form.add_error(refusal.field, str(refusal))
        return _page(request, organization, form, status=422)


@require_POST
def remove(request: HttpRequest, owner: str, entry_id: int) -> HttpResponse:
    """Take a host off the list, after a review of the policies that get endpoints back."""
    organization = access.get_organization(request, owner, "policies.change_neverallowhost")
    rows = NeverAllowHost.objects.select_related("organization")
    entry = get_object_or_404(rows, pk=entry_id, organization=organization)
    form = AgreedForm(request.POST)
    try:
        agreed = form.cleaned_data["agreed"] if form.is_valid() else []
        never_allow.RemoveNeverAllow(entry=entry, agreed=agreed).apply(by=access.actor(request))
        messages.success(request, f"Policies decide about {entry.host} again.")
    except PoliciesWouldChange as would_change:
        context = {"organization": organization, "host": entry.host, "reason": entry.reason, "entry": entry}
        return _review(request, form, would_change, context)
    except NeverAllowGone as gone:
        messages.info(request, str(gone))
    return redirect("never-allow:list", organization.key)


def _add(request: HttpRequest, organization: Organization, form: NeverAllowForm) -> HttpResponse:
    entry, effects = never_allow.add(organization=organization, by=access.actor(request), **form.cleaned_data)
    count = len(effects)
    recompiled = f" {count} polic{'y has' if count == 1 else 'ies have'} a new version without it." if effects else ""
    messages.success(request, f"No policy lets {entry.host} through from now on.{recompiled}")
    anyway = let_through_anyway(entry.host)
    if anyway:
        messages.warning(request, f"The agent always allows {', '.join(anyway)}, whatever a policy says.")
    return redirect("never-allow:list", organization.key)


def _review(
    request: HttpRequest, form: AgreedForm, would_change: PoliciesWouldChange, context: dict[str, object]
) -> HttpResponse:
    shown, status = form.review(would_change)
    return render(request, "policies/never_allow_review.html", {**shown, **context}, status=status)


def _page(request: HttpRequest, organization: Organization, form: NeverAllowForm, *, status: int = 200) -> HttpResponse:
    rows = NeverAllowHost.objects.filter(organization=organization).order_by("host")
    page = Paginator(rows, ENTRIES_PER_PAGE).get_page(request.GET.get("page"))
    entries = [(entry, let_through_anyway(entry.host)) for entry in page]
    context = {"organization": organization, "page": page, "entries": entries, "form": form}
    return render(request, "policies/never_allow.html", context, status=status)
