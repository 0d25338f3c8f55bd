"""Attaching policies to scopes, modifying attachments and detaching."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

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
def attach(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Attach policy / Modify attachment: collect scopes to add and remove, then save them in one go.

    Links can name scopes to begin with (`?add=KEY`).
    """
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    if request.method != "POST":
        return _page(request, policy, pending=_readable(request.GET.getlist("add")))
    action, _, argument = request.POST.get("action", "").partition(" ")
    try:
        pending = _pending(request, policy, action, argument)
        removed = _scopes(policy, request.POST.getlist("remove") if action == "save" else ())
    except ValueError as refusal:
        return _page(request, policy, pending=_readable(request.POST.getlist("add")), refusal=str(refusal), status=422)
    return _save(request, policy, pending, removed) if action == "save" else _page(request, policy, pending=pending)


@require_GET
def targets(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """The scopes that can be chosen, for a type and a search."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    return render(request, "policies/attach.html#targets", _choice(request, policy))


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
    if pending or removed:
        messages.success(request, f"The attachment of {policy.name} was changed.")
    else:
        messages.info(request, "Nothing was added or removed.")
    return redirect("policies:view", policy.organization.key, policy.pk)


def _pending(request: HttpRequest, policy: Policy, action: str, argument: str) -> list[Scope]:
    """The scopes to add, after the action on them. Raises ValueError for a text that names no scope to attach to."""
    pending = _scopes(policy, request.POST.getlist("add"))
    if action == "drop":
        return [scope for scope in pending if scope.key != argument]
    if action == "choose":
        pending += _scopes(policy, [argument])
    elif action == "add":
        kind, name = request.POST.get("type", ""), request.POST.get("name", "")
        pending.append(parse_scope(kind, policy.organization.login, name))
    return list({scope.key: scope for scope in pending}.values())


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


def _choice(request: HttpRequest, policy: Policy) -> dict[str, Any]:
    source = request.POST if request.method == "POST" else request.GET
    kind, search = source.get("type", ""), search_text(source, "name")
    found = queries.targets(policy.organization, kind, search)
    return {
        "organization": policy.organization,
        "policy": policy,
        "type": kind if kind in TYPE_ORDER else "",
        "name": search,
        "found": found,
        "without_runner": queries.clusters_without_runner(policy.organization, [target.scope for target in found]),
        "most_found": queries.TARGETS_SHOWN,
    }


def _page(
    request: HttpRequest, policy: Policy, *, pending: list[Scope], refusal: str = "", status: int = 200
) -> HttpResponse:
    narrowed = search_text(request.POST, "attached")
    shown = list(queries.attachments_of(policy, search=narrowed)[:SCOPES_SHOWN])
    removed = dict.fromkeys(request.POST.getlist("remove"))
    choice = _choice(request, policy)
    on_page = [*pending, *(attachment.scope for attachment in shown)]
    context = {
        **choice,
        "without_runner": choice["without_runner"] | queries.clusters_without_runner(policy.organization, on_page),
        "types": TYPE_ORDER,
        "pending": pending,
        "attachments": shown,
        "narrowed": narrowed,
        "has_more": not narrowed and len(shown) < policy.attachment_count,
        "removed": removed,
        "removed_elsewhere": removed.keys() - {attachment.scope_key for attachment in shown},
        "refusal": refusal,
    }
    return render(request, "policies/attach.html", context, status=status)
