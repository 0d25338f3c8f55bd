"""Settings: the keys of runners, management keys (of Terraform and other systems), members, and the inventory."""

from __future__ import annotations

from dataclasses import dataclass

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from policystore.accounts import access, api_keys
from policystore.accounts import members as member_actions
from policystore.accounts.models import AccountEvent, ApiKey, FormerMember, KeyKind, KeySlot, Membership
from policystore.accounts.roles import Role
from policystore.inventory import actions as inventory_actions
from policystore.inventory.models import Cluster, Organization, Repository
from policystore.web import pagination

EVENTS_SHOWN = 20
MEMBERS_PER_PAGE = 50
REMOVED_SHOWN = 100
REPOSITORIES_PER_PAGE = 50
CLUSTERS_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a key, with the key that works in it now, if any."""

    kind: KeyKind
    slot: KeySlot
    key: ApiKey | None


class SlotForm(forms.Form):
    """The runner key to regenerate, whether the person confirmed, and for which key (its id)."""

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
    context = {"organization": organization, "keys": keys, "form": form, "web_address": settings.PUBLIC_URL, **more}
    return render(request, "accounts/management_keys.html", context, status=status)


class MemberForm(forms.Form):
    """A person to add, by GitHub login."""

    username = forms.CharField(max_length=40, label="GitHub login")
    role = forms.ChoiceField(choices=Role.choices, initial=Role.AUDITOR)


class RoleForm(forms.Form):
    """The role to give to a member, or to a former member who is added again."""

    role = forms.ChoiceField(choices=Role.choices)


@require_http_methods(["GET", "POST"])
def members(request: HttpRequest, owner: str) -> HttpResponse:
    """The members and their roles; POST adds one."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "accounts.view_membership")
        return _members_page(request, organization, MemberForm())
    organization = access.get_organization(request, owner, "accounts.change_membership")
    form = MemberForm(request.POST)
    if form.is_valid():
        try:
            member_actions.add(organization=organization, by=access.actor(request), **form.cleaned_data)
            messages.success(request, f"{form.cleaned_data['username']} was added.")
            return redirect("settings:members", organization.key)
        except member_actions.MemberRefused as refusal:
            form.add_error("username", str(refusal))
    return _members_page(request, organization, form, status=422)


@require_POST
def member(request: HttpRequest, owner: str, membership_id: int) -> HttpResponse:
    """Change a member's role."""
    organization = access.get_organization(request, owner, "accounts.change_membership")
    membership = get_object_or_404(Membership, pk=membership_id, organization=organization)
    form = RoleForm(request.POST)
    if not form.is_valid():
        return _refuse_role(request, organization)
    role = form.cleaned_data["role"]
    try:
        member_actions.change_role(membership=membership, role=role, by=access.actor(request))
        messages.success(request, f"{membership.user} now has the role {Role(role).label.lower()}.")
    except member_actions.MemberRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("settings:members", organization.key)


@require_http_methods(["GET", "POST"])
def remove_member(request: HttpRequest, owner: str, membership_id: int) -> HttpResponse:
    """Ask for confirmation; POST removes the member."""
    organization = access.get_organization(request, owner, "accounts.change_membership")
    membership = get_object_or_404(Membership, pk=membership_id, organization=organization)
    if request.method != "POST":
        context = {"organization": organization, "member": membership}
        return render(request, "accounts/remove_member.html", context)
    try:
        member_actions.remove(membership=membership, by=access.actor(request))
        messages.success(request, f"{membership.user} was removed.")
    except member_actions.MemberRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("settings:members", organization.key)


@require_POST
def add_back(request: HttpRequest, owner: str, former_id: int) -> HttpResponse:
    """Add a former member again."""
    organization = access.get_organization(request, owner, "accounts.change_membership")
    former = get_object_or_404(FormerMember, pk=former_id, organization=organization)
    form = RoleForm(request.POST)
    if not form.is_valid():
        return _refuse_role(request, organization)
    try:
        member_actions.add_back(former=former, role=form.cleaned_data["role"], by=access.actor(request))
        messages.success(request, f"{former.user} was added again.")
    except member_actions.MemberRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("settings:members", organization.key)


def _refuse_role(request: HttpRequest, organization: Organization) -> HttpResponse:
    written = request.POST.get("role", "")[:40]
    messages.error(request, f"“{written}” is not a valid role. Choose auditor, security admin or owner.")
    return _members_page(request, organization, MemberForm(), status=422)


def _members_page(
    request: HttpRequest, organization: Organization, form: MemberForm, *, status: int = 200
) -> HttpResponse:
    search = _search(request)
    rows = Membership.objects.filter(organization=organization, user__username__icontains=search)
    page = Paginator(rows.select_related("user").order_by("user__username"), MEMBERS_PER_PAGE)
    removed = FormerMember.objects.filter(organization=organization).exclude(removed_by="")
    events = AccountEvent.objects.filter(owner=organization.key).order_by("-pk")[:EVENTS_SHOWN]
    context = {
        "organization": organization,
        "page": page.get_page(request.GET.get("page")),
        "search": search,
        "removed": removed.select_related("user").order_by("-ended_at")[:REMOVED_SHOWN],
        "events": events,
        "form": form,
        "roles": Role.choices,
    }
    return render(request, "accounts/members.html", context, status=status)


def _search(request: HttpRequest) -> str:
    return request.GET.get("q", "").replace("\0", "").strip()[:100]


class InventoryForm(forms.Form):
    """A repository, a workflow or a cluster to add to the inventory."""

    repository = forms.CharField(max_length=255, required=False)
    workflow = forms.CharField(max_length=512, required=False, label="Workflow file")
    cluster = forms.CharField(max_length=255, required=False, label="ARC cluster")

    def clean(self) -> dict[str, str]:
        """Refuse an empty form, and a workflow without a repository."""
        values: dict[str, str] = super().clean() or {}
        if values.get("workflow") and not values.get("repository"):
            self.add_error("repository", "Name the repository that has this workflow.")
        elif not any(values.values()):
            self.add_error("repository", "Name a repository or a cluster.")
        return values


@require_http_methods(["GET", "POST"])
def inventory(request: HttpRequest, owner: str) -> HttpResponse:
    """Repositories with their workflows, and clusters; POST adds one."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "inventory.view_repository")
        return _inventory_page(request, organization, InventoryForm())
    organization = access.get_organization(request, owner, "inventory.add_repository")
    form = InventoryForm(request.POST)
    if form.is_valid() and _add_to_inventory(organization, form):
        messages.success(request, "Added.")
        return redirect("settings:inventory", organization.key)
    return _inventory_page(request, organization, form, status=422)


def _add_to_inventory(organization: Organization, form: InventoryForm) -> bool:
    values = form.cleaned_data
    field = "repository"
    try:
        if values["repository"]:
            repository = inventory_actions.add_repository(organization=organization, name=values["repository"])
            field = "workflow"
            if values["workflow"]:
                inventory_actions.add_workflow(repository=repository, file_name=values["workflow"])
        field = "cluster"
        if values["cluster"]:
            inventory_actions.add_cluster(organization=organization, name=values["cluster"])
    except ValueError as refusal:
        form.add_error(field, str(refusal))
        return False
    return True


def _inventory_page(
    request: HttpRequest, organization: Organization, form: InventoryForm, *, status: int = 200
) -> HttpResponse:
    search = _search(request)
    rows = Repository.objects.filter(organization=organization, key__contains=search.lower()).order_by("key")
    page = Paginator(rows.prefetch_related("workflows"), REPOSITORIES_PER_PAGE).get_page(request.GET.get("page"))
    clusters = list(
        Cluster.objects.filter(organization=organization, name__icontains=search).order_by("name")[: CLUSTERS_SHOWN + 1]
    )
    context = {
        "organization": organization,
        "page": page,
        "form": form,
        "search": search,
        "clusters": clusters[:CLUSTERS_SHOWN],
        "more_clusters": len(clusters) > CLUSTERS_SHOWN,
    }
    return render(request, "accounts/inventory.html", context, status=status)
