"""Settings → Global Blocklist."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.runners import blocklist
from policystore.runners.forms import BlocklistForm
from policystore.runners.models import BlocklistEntry

ENTRIES_PER_PAGE = 100


@require_http_methods(["GET", "POST"])
def blocklist_page(request: HttpRequest, owner: str) -> HttpResponse:
    """List the organization's entries; POST adds one."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "runners.view_blocklistentry")
        return _page(request, organization, BlocklistForm())
    organization = access.get_organization(request, owner, "runners.change_blocklistentry")
    form = BlocklistForm(request.POST)
    if form.is_valid():
        try:
            entry = blocklist.add(organization=organization, by=access.actor(request), **form.cleaned_data)
        except blocklist.EndpointRefused as refusal:
            form.add_error("endpoint", str(refusal))
        else:
            messages.success(request, f"{entry.endpoint} is now on the blocklist.")
            return redirect("runners-settings:blocklist", organization.key)
    return _page(request, organization, form, status=422)


@require_POST
def remove_entry(request: HttpRequest, owner: str, entry_id: int) -> HttpResponse:
    """Remove one entry."""
    organization = access.get_organization(request, owner, "runners.change_blocklistentry")
    entry = get_object_or_404(BlocklistEntry, pk=entry_id, organization=organization)
    blocklist.remove(entry=entry, by=access.actor(request))
    messages.success(request, f"{entry.endpoint} was removed from the blocklist.")
    return redirect("runners-settings:blocklist", organization.key)


def _page(request: HttpRequest, organization: Organization, form: BlocklistForm, *, status: int = 200) -> HttpResponse:
    rows = BlocklistEntry.objects.filter(organization=organization)
    page = Paginator(rows, ENTRIES_PER_PAGE).get_page(request.GET.get("page"))
    for entry in page:
        entry.can_be_served = blocklist.can_be_served(entry.kind, entry.endpoint)  # type: ignore[attr-defined]
    context = {
        "organization": organization,
        "page": page,
        "form": form,
        "store_wide": BlocklistEntry.objects.filter(organization__isnull=True),
        "is_sole": blocklist.sole_organization() == organization,
    }
    return render(request, "runners/blocklist.html", context, status=status)
