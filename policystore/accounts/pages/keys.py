"""Settings → Harden-Runner Installation and Management Keys: the keys of runners, of Terraform and of other systems."""

from __future__ import annotations

from dataclasses import dataclass

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from policystore.accounts import access, api_keys
from policystore.accounts.models import ApiKey, KeyKind, KeySlot
from policystore.inventory.models import Organization
from policystore.web import pagination


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a key, with the key that works in it now, if any."""

    kind: KeyKind
    slot: KeySlot
    key: ApiKey | None


class SlotForm(forms.Form):
    """Which runner key to regenerate, whether the person has been asked, and about which key (its id)."""

    kind = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in (KeyKind.VM, KeyKind.ARC)])
    slot = forms.ChoiceField(choices=KeySlot.choices)
    confirmed = forms.BooleanField(required=False)
    replacing = forms.IntegerField(required=False, min_value=0, max_value=pagination.MAX_ROW_ID)


class KeyClustersForm(forms.Form):
    """The clusters that an ARC key is limited to, separated by spaces, commas or new lines; empty for no limit."""

    clusters = forms.CharField(
        max_length=30_000,
        required=False,
        label="Clusters, one per line",
        widget=forms.Textarea({"rows": 4, "placeholder": "prod-k8s", "autocomplete": "off", "spellcheck": "false"}),
    )

    def clean_clusters(self) -> list[str]:
        """Split the names."""
        return str(self.cleaned_data["clusters"]).replace(",", " ").split()


@require_GET
def installation(request: HttpRequest, owner: str) -> HttpResponse:
    """Both pairs of keys."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    return _installation_page(request, organization)


@require_POST
@never_cache
def regenerate(request: HttpRequest, owner: str) -> HttpResponse:
    """Ask first; then replace the key in a slot and show the new one, this once."""
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    form = SlotForm(request.POST)
    if not form.is_valid():
        return _installation_page(request, organization, status=422, refusal="Choose which key to regenerate.")
    kind, slot = KeyKind(form.cleaned_data["kind"]), KeySlot(form.cleaned_data["slot"])
    current = api_keys.live(organization).filter(kind=kind, slot=slot).first()
    if current is not None and not _agreed_to_lose(form, current):
        asked = {"organization": organization, "kind": kind, "slot": slot, "key": current}
        return render(request, "accounts/regenerate_key.html", asked)
    clear = api_keys.regenerate(organization=organization, kind=kind, slot=slot, by=access.actor(request))
    return _installation_page(request, organization, fresh_key=clear, fresh_kind=kind, fresh_slot=slot)


@require_http_methods(["GET", "POST"])
def clusters(request: HttpRequest, owner: str, arc_key_id: int) -> HttpResponse:
    """Show the clusters that an ARC key is limited to, and change them."""
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    key = get_object_or_404(api_keys.live(organization), kind=KeyKind.ARC, pk=arc_key_id)
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


def _installation_page(
    request: HttpRequest, organization: Organization, *, status: int = 200, **more: object
) -> HttpResponse:
    live = {(key.kind, key.slot): key for key in api_keys.live(organization)}
    pairs = [
        (kind, [Slot(kind, slot, live.get((kind, slot))) for slot in KeySlot]) for kind in (KeyKind.VM, KeyKind.ARC)
    ]
    context = {"organization": organization, "pairs": pairs, **more}
    return render(request, "accounts/keys.html", context, status=status)


class ManagementKeyForm(forms.Form):
    """The person or system that a management key is for; the history names it."""

    name = forms.CharField(max_length=100, label="For whom")


@require_http_methods(["GET", "POST"])
@never_cache
def management_keys(request: HttpRequest, owner: str) -> HttpResponse:
    """The live keys; POST makes one and shows it, this once."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "accounts.view_apikey")
        return _management_page(request, organization, ManagementKeyForm())
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    form = ManagementKeyForm(request.POST)
    if form.is_valid():
        name = form.cleaned_data["name"]
        try:
            clear = api_keys.create_management(organization=organization, name=name, by=access.actor(request))
        except api_keys.KeyNameTaken as taken:
            form.add_error("name", str(taken))
        else:
            return _management_page(request, organization, ManagementKeyForm(), fresh_key=clear, fresh_name=name)
    return _management_page(request, organization, form, status=422)


@require_http_methods(["GET", "POST"])
def revoke_key(request: HttpRequest, owner: str, key_id: int) -> HttpResponse:
    """Ask; then stop a key from working."""
    organization = access.get_organization(request, owner, "accounts.change_apikey")
    key = get_object_or_404(api_keys.live(organization), kind=KeyKind.MANAGEMENT, pk=key_id)
    if request.method != "POST":
        return render(request, "accounts/revoke_key.html", {"organization": organization, "key": key})
    api_keys.revoke(key=key, by=access.actor(request))
    messages.success(request, f"The key {key.name} is revoked.")
    return redirect("settings:management-keys", organization.key)


def _management_page(
    request: HttpRequest, organization: Organization, form: ManagementKeyForm, *, status: int = 200, **more: object
) -> HttpResponse:
    keys = api_keys.live(organization).filter(kind=KeyKind.MANAGEMENT).order_by("name", "pk")
    context = {"organization": organization, "keys": keys, "form": form, "public_url": settings.PUBLIC_URL, **more}
    return render(request, "accounts/management_keys.html", context, status=status)
