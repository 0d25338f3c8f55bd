"""Settings → Harden-Runner Installation: the runner keys of an organization."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from policystore.accounts import access, api_keys
from policystore.accounts.forms import KeyClustersForm, SlotForm
from policystore.accounts.models import ApiKey, KeyKind, KeySlot
from policystore.inventory.models import Organization


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a key, with the key that works in it now, if any."""

    kind: KeyKind
    slot: KeySlot
    key: ApiKey | None


@require_GET
def installation(request: HttpRequest, owner: str) -> HttpResponse:
    """Both pairs of keys."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    return _page(request, organization)


@require_POST
@never_cache
def regenerate(request: HttpRequest, owner: str) -> HttpResponse:
    """Ask first; then replace the key in a slot and show the new one, this once."""
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    form = SlotForm(request.POST)
    if not form.is_valid():
        return _page(request, organization, status=422, refusal="Choose which key to regenerate.")
    kind, slot = KeyKind(form.cleaned_data["kind"]), KeySlot(form.cleaned_data["slot"])
    current = _live(organization).filter(kind=kind, slot=slot).first()
    if current is not None and not _agreed_to_lose(form, current):
        asked = {"organization": organization, "kind": kind, "slot": slot, "key": current}
        return render(request, "accounts/regenerate_key.html", asked)
    clear = api_keys.regenerate(organization=organization, kind=kind, slot=slot, by=access.actor(request))
    return _page(request, organization, fresh_key=clear, fresh_kind=kind, fresh_slot=slot)


@require_http_methods(["GET", "POST"])
def clusters(request: HttpRequest, owner: str, arc_key_id: int) -> HttpResponse:
    """Show the clusters that an ARC key is limited to, and change them."""
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    key = get_object_or_404(_live(organization), kind=KeyKind.ARC, pk=arc_key_id)
    form = KeyClustersForm(request.POST or None, initial={"clusters": "\n".join(key.cluster_names)})
    if request.method == "POST" and form.is_valid():
        names = form.cleaned_data["clusters"]
        try:
            api_keys.limit_to_clusters(key=key, clusters=names, by=access.actor(request))
        except api_keys.CannotLimit as refusal:
            form.add_error("clusters", str(refusal))
        else:
            limit = "is now limited to these clusters" if names else "now works in every cluster"
            messages.success(request, f"The {key.get_slot_display().lower()} ARC key {limit}.")
            return redirect("settings:keys", organization.key)
    context = {"organization": organization, "key": key, "form": form}
    return render(request, "accounts/key_clusters.html", context, status=422 if form.errors else 200)


def _agreed_to_lose(form: SlotForm, key: ApiKey) -> bool:
    """Return True if the person confirmed for this very key; a reload, or another owner, may have replaced it."""
    replacing = form.cleaned_data["replacing"]
    return form.cleaned_data["confirmed"] and replacing in (None, key.pk)


def _live(organization: Organization):  # type: ignore[no-untyped-def]
    return ApiKey.objects.filter(organization=organization, revoked_at__isnull=True).exclude(kind=KeyKind.MANAGEMENT)


def _page(request: HttpRequest, organization: Organization, *, status: int = 200, **more: object) -> HttpResponse:
    live = {(key.kind, key.slot): key for key in _live(organization)}
    pairs = [
        (kind, [Slot(kind, slot, live.get((kind, slot))) for slot in KeySlot]) for kind in (KeyKind.VM, KeyKind.ARC)
    ]
    context = {"organization": organization, "pairs": pairs, **more}
    return render(request, "accounts/keys.html", context, status=status)
