"""Settings → Members."""

from __future__ import annotations

from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from policystore.accounts import access
from policystore.accounts import members as member_actions
from policystore.accounts.models import AccountEvent, FormerMember, Membership
from policystore.accounts.roles import Role
from policystore.inventory.models import Organization

EVENTS_SHOWN = 20
MEMBERS_PER_PAGE = 50
REMOVED_SHOWN = 100


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
        return _page(request, organization, MemberForm())
    organization = access.get_organization(request, owner, "accounts.change_membership")
    form = MemberForm(request.POST)
    if form.is_valid():
        try:
            member_actions.add(organization=organization, by=access.actor(request), **form.cleaned_data)
            messages.success(request, f"{form.cleaned_data['username']} was added.")
            return redirect("settings:members", organization.key)
        except member_actions.MemberRefused as refusal:
            form.add_error("username", str(refusal))
    return _page(request, organization, form, status=422)


@require_POST
def member(request: HttpRequest, owner: str, membership_id: int) -> HttpResponse:
    """Change a member's role."""
    organization = access.get_organization(request, owner, "accounts.change_membership")
    membership = get_object_or_404(Membership, pk=membership_id, organization=organization)
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, _name_the_role(request))
        return _page(request, organization, MemberForm(), status=422)
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
        messages.error(request, _name_the_role(request))
        return _page(request, organization, MemberForm(), status=422)
    try:
        member_actions.add_back(former=former, role=form.cleaned_data["role"], by=access.actor(request))
        messages.success(request, f"{former.user} was added again.")
    except member_actions.MemberRefused as refusal:
        messages.error(request, str(refusal))
    return redirect("settings:members", organization.key)


def _name_the_role(request: HttpRequest) -> str:
    written = request.POST.get("role", "")[:40]
    return f"“{written}” is not a valid role. Choose auditor, security admin or owner."


def _page(request: HttpRequest, organization: Organization, form: MemberForm, *, status: int = 200) -> HttpResponse:
    search = request.GET.get("q", "").replace("\0", "").strip()[:100]
    rows = Membership.objects.filter(organization=organization, user__username__icontains=search)
    page = Paginator(rows.select_related("user").order_by("user__username"), MEMBERS_PER_PAGE)
    removed = FormerMember.objects.filter(organization=organization).exclude(removed_by="")
    events = AccountEvent.objects.filter(owner=organization.key).order_by("-pk")[:EVENTS_SHOWN]
    context = {
        "organization": organization,
        "page": page.get_page(request.GET.get("page")),
        "search": search,
        "pager_query": urlencode({"q": search}) + "&",
        "removed": removed.select_related("user").order_by("-ended_at")[:REMOVED_SHOWN],
        "events": events,
        "form": form,
        "roles": Role.choices,
    }
    return render(request, "accounts/members.html", context, status=status)
