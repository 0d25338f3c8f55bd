"""Attaching policies to scopes, modifying attachments and detaching."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_http_methods
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import trigger_client_event

from policystore.accounts import access
from policystore.policies.core import attachments, queries
from policystore.policies.errors import ForeignScope, ScopesTaken
from policystore.policies.models import Policy
from policystore.policies.pages.get_or_404 import get_policy, search_text
from policystore.policy_language.scopes import Scope, ScopeType, parse_scope
from policystore.web import pagination

SCOPES_SHOWN = 500
TYPE_ORDER = (ScopeType.CLUSTER, ScopeType.ORGANIZATION, ScopeType.REPOSITORY, ScopeType.WORKFLOW)


@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
def attach(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Attach policy / Modify attachment: collect scopes to add and remove, then save them in one go.

    Links can name scopes to begin with (`?add=KEY`). htmx posts the form with each choice, and gets the parts of the
    page that depend on it.
    """
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    if request.method != "POST":
        return _page(request, policy, pending=_readable(request.GET.getlist("add")))
    action, _, argument = request.POST.get("action", "").partition(" ")
    is_save = action == "save"
    try:
        pending = _pending(request, policy, action, argument)
        removed = _scopes(policy, request.POST.getlist("remove") if is_save else ())
        if is_save:
            _refuse_target_not_added(request, policy, pending)
    except ValueError as refusal:
        return _page(request, policy, pending=_readable(_chosen_keys(request)), refusal=str(refusal), status=422)
    return _save(request, policy, pending, removed) if is_save else _page(request, policy, pending=pending)


@require_http_methods(["GET", "POST"])
def detach(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Detach policy: remove all attachments, after asking."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    if request.method == "POST":
        attachments.DetachPolicy(policy=policy).apply(by=access.actor(request))
        messages.success(request, f"{policy.name} is no longer attached.")
        return redirect("policies:view", policy.organization.key, policy.pk)
    context = {
        "organization": policy.organization,
        "policy": policy,
        "attachments": queries.attachments_of(policy)[:SCOPES_SHOWN],
        "more_attachments": max(policy.attachment_count - SCOPES_SHOWN, 0),
    }
    return render(request, "policies/detach.html", context)


def _save(request: HttpRequest, policy: Policy, pending: list[Scope], removed: list[Scope]) -> HttpResponse:
    replacing = _replacements(request.POST.getlist("replacing"))
    try:
        attachments.ModifyAttachments(policy=policy, add=pending, remove=removed, replacing=replacing).apply(
            by=access.actor(request)
        )
    except ScopesTaken as refusal:
        context = {
            "organization": policy.organization,
            "policy": policy,
            "pending": pending,
            "removed": removed,
            "taken": refusal.taken,
        }
        return render(request, "policies/replace.html", context, status=409)
    except ForeignScope as refusal:
        return _page(request, policy, pending=pending, refusal=str(refusal), status=422)
    if pending:
        messages.success(request, _attached(request, policy))
    elif removed:
        messages.success(request, f"The attachment of {policy.name} was changed.")
    else:
        messages.info(request, "Nothing was added or removed.")
    return redirect("policies:view", policy.organization.key, policy.pk)


def _attached(request: HttpRequest, policy: Policy) -> str:
    """The message that the policy was attached, and what runners need to fetch it."""
    may_set_up = request.user.has_perm("accounts.view_apikey", policy.organization)
    page = reverse("runners-settings:github-hosted", args=[policy.organization.key])
    return format_html(
        "The attachment of {} was changed. A job fetches the policy if its workflow has a Harden-Runner step with "
        "<code>use-policy-store: true</code> and an API key, or if its runner has the job hooks. {}",
        policy.name,
        format_html('<a href="{}">Set up runners</a>', page) if may_set_up else "",
    )


def _pending(request: HttpRequest, policy: Policy, action: str, argument: str) -> list[Scope]:
    """The scopes to add, after the action on them. Raises ValueError for a text that names no scope to attach to."""
    pending = _scopes(policy, _chosen_keys(request))
    if action == "drop":
        return [scope for scope in pending if scope.key != argument]
    if action == "add":
        added = _typed_scope(request, policy)
        return [*pending, added] if added not in pending else pending
    return pending


def _chosen_keys(request: HttpRequest) -> list[str]:
    """The keys that were chosen before, except targets on the page that are no longer ticked, and the ticked ones."""
    chosen = request.POST.getlist("chosen")
    unticked = set(request.POST.getlist("shown")) - set(chosen)
    return list(dict.fromkeys(key for key in [*request.POST.getlist("add"), *chosen] if key not in unticked))


def _typed_scope(request: HttpRequest, policy: Policy) -> Scope:
    return parse_scope(request.POST.get("type", ""), policy.organization.login, request.POST.get("name", ""))


def _refuse_target_not_added(request: HttpRequest, policy: Policy, pending: list[Scope]) -> None:
    """Raise ValueError if a target was typed but not added, unless it was the search for the ticked targets."""
    typed = search_text(request.POST, "name")
    if not typed or (request.POST.getlist("chosen") and typed == request.POST.get("searched")):
        return
    try:
        scope = _typed_scope(request, policy)
    except ValueError as error:
        raise ValueError(f"Nothing was saved. {error} Correct or clear the target, then save again.") from error
    if scope not in pending and not queries.attachments_of(policy).filter(scope_key=scope.key).exists():
        raise ValueError(
            f"Nothing was saved: “{typed}” has not been added. Press “Add this name” or clear the target, then save "
            "again."
        )


def _scopes(policy: Policy, keys: Iterable[str]) -> list[Scope]:
    scopes = [Scope.from_key(key) for key in dict.fromkeys(keys)]
    for scope in scopes:
        if scope.owner != policy.organization.key:
            raise ValueError(f"{scope.label} does not belong to {policy.organization.login}.")
    return scopes


def _readable(keys: Iterable[str]) -> list[Scope]:
    scopes = []
    for key in dict.fromkeys(keys):
        try:
            scopes.append(Scope.from_key(key))
        except ValueError:
            continue
    return scopes


def _replacements(values: Iterable[str]) -> dict[str, int]:
    confirmed = {}
    for value in values:
        written, _, key = value.partition(" ")
        policy_id = pagination.parse_row_id(written)
        if policy_id is not None:
            confirmed[key] = policy_id
    return confirmed


def _page(
    request: HttpRequest, policy: Policy, *, pending: list[Scope], refusal: str = "", status: int = 200
) -> HttpResponse:
    source = request.POST if request.method == "POST" else request.GET
    action, kind, narrowed = source.get("action", ""), source.get("type", ""), search_text(source, "attached")
    search = "" if action == "add" and not refusal else search_text(source, "name")
    found = queries.targets(policy.organization, kind, search)
    shown = list(queries.attachments_of(policy, search=narrowed)[:SCOPES_SHOWN])
    removed = dict.fromkeys(source.getlist("remove"))
    on_page = [*pending, *(target.scope for target in found), *(attachment.scope for attachment in shown)]
    context = {
        "organization": policy.organization,
        "policy": policy,
        "types": TYPE_ORDER,
        "type": kind if kind in TYPE_ORDER else "",
        "name": search,
        "found": found,
        "most_found": queries.TARGETS_SHOWN,
        "without_runner": queries.clusters_without_runner(policy.organization, on_page),
        "pending": queries.with_holders(policy.organization, pending),
        "pending_keys": {scope.key for scope in pending},
        "attachments": shown,
        "narrowed": narrowed,
        "has_more": not narrowed and len(shown) < policy.attachment_count,
        "removed": removed,
        "removed_elsewhere": removed.keys() - {attachment.scope_key for attachment in shown},
        "refusal": refusal,
        "action": action,
    }
    if not request.htmx:  # type: ignore[attr-defined]
        return render(request, "policies/attach.html", context, status=status)
    response = render(request, "policies/attach.html#changed", context, status=status)
    # The impact is requested again once the form holds the new scopes.
    return trigger_client_event(response, "attachment-changed", after="settle")
