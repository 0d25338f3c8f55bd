"""Settings → Management keys: the keys of Terraform and other systems."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from policystore.accounts import access, api_keys
from policystore.accounts.forms import ManagementKeyForm
from policystore.accounts.models import ApiKey, KeyKind
from policystore.inventory.models import Organization


@require_http_methods(["GET", "POST"])
@never_cache
def management_keys(request: HttpRequest, owner: str) -> HttpResponse:
    """The live keys; POST makes one and shows it, this once."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "accounts.view_apikey")
        return _page(request, organization, ManagementKeyForm())
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    form = ManagementKeyForm(request.POST)
    if form.is_valid():
        name = form.cleaned_data["name"]
        try:
            clear = api_keys.create_management(organization=organization, name=name, by=access.actor(request))
        except api_keys.KeyNameTaken as taken:
            form.add_error("name", str(taken))
        else:
            return _page(request, organization, ManagementKeyForm(), fresh_key=clear, fresh_name=name)
    return _page(request, organization, form, status=422)


@require_http_methods(["GET", "POST"])
def revoke_key(request: HttpRequest, owner: str, key_id: int) -> HttpResponse:
    """Ask; then stop a key from working."""
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    key = get_object_or_404(_live(organization), pk=key_id)
    if request.method != "POST":
        return render(request, "accounts/revoke_key.html", {"organization": organization, "key": key})
    api_keys.revoke(key=key, by=access.actor(request))
    messages.success(request, f"The key {key.name} is revoked.")
    return redirect("settings:management-keys", organization.key)


def _live(organization: Organization):  # type: ignore[no-untyped-def]
    return ApiKey.objects.filter(organization=organization, kind=KeyKind.MANAGEMENT, revoked_at__isnull=True)


def _page(
    request: HttpRequest, organization: Organization, form: ManagementKeyForm, *, status: int = 200, **more: object
) -> HttpResponse:
    keys = _live(organization).order_by("name", "pk")
    context = {
        "organization": organization,
        "keys": keys,
        "form": form,
        "public_url": settings.PUBLIC_URL,
        **more,
    }
    return render(request, "accounts/management_keys.html", context, status=status)
