"""A policy's staged version: writing it, its canary scopes, promoting and discarding it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from policystore.accounts import access
from policystore.policies import compiler, staging
from policystore.policies.core import queries
from policystore.policies.errors import EditConflict, InvalidDocument, ScopeNotCovered, StagedConflict, StagedGone
from policystore.policies.models import Policy, StagedVersion
from policystore.policies.pages.editing import (
    MAX_ADDED,
    added_endpoints,
    problem_context,
    report_size,
    with_endpoints,
)
from policystore.policies.pages.forms import CanariesForm, StageForm
from policystore.policies.pages.get_or_404 import get_policy, policy_of
from policystore.policy_language.diff import side_by_side
from policystore.policy_language.document import read_reply
from policystore.policy_language.scopes import Scope, parse_scope
from policystore.web import pagination

SCOPES_OFFERED = 200


@require_http_methods(["GET", "POST"])
def staged(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """The staged version beside the live one, in an editor; POST stages what was written."""
    if request.method != "POST":
        policy = get_policy(request, owner, policy_id, "policies.view_policy")
        return _page(request, policy, add=request.GET.getlist("add")[:MAX_ADDED])
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    form = StageForm(request.POST)
    if not form.is_valid():
        return _page(request, policy, form=form, status=422)
    return _stage(request, policy, form)


def _stage(request: HttpRequest, policy: Policy, form: StageForm) -> HttpResponse:
    values = form.cleaned_data
    version, event = values["version"] or 0, values["event"]
    try:
        staging.StageVersion(policy=policy, text=values["text"], live_version=version, expected_event=event).apply(
            by=access.actor(request)
        )
    except InvalidDocument as refusal:
        form.add_error("text", str(refusal))
        return _page(request, policy, form=form, status=422)
    except (EditConflict, StagedConflict) as conflict:
        if report_size(form):
            return _page(request, policy, form=form, status=422)
        return _again(request, policy, str(values["text"]), conflict)
    messages.success(request, "The version is staged. Only its canaries get it, until you promote it.")
    return redirect("policies:staged", policy.organization.key, policy.pk)


@require_POST
def canaries(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Keep the canary scopes that are ticked, and add one that was written."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    form = CanariesForm(request.POST)
    if not form.is_valid():
        return _page(request, policy, canaries_form=form, status=422)
    try:
        scopes = [Scope.from_key(key) for key in request.POST.getlist("keep")]
        if form.cleaned_data["name"] or form.cleaned_data["type"] == "organization":
            scopes.append(parse_scope(form.cleaned_data["type"], policy.organization.login, form.cleaned_data["name"]))
        event = form.cleaned_data["event"] or 0
        staging.SetCanaries(policy=policy, scopes=scopes, expected_event=event).apply(by=access.actor(request))
    except (StagedConflict, StagedGone) as refusal:
        messages.error(request, f"{refusal} Review it again.")
    except (ValueError, ScopeNotCovered) as refusal:
        form.add_error("name", str(refusal))
        return _page(request, policy, canaries_form=form, status=422)
    else:
        messages.success(request, "Jobs in the canary scopes get the staged version from now on.")
    return redirect("policies:staged", policy.organization.key, policy.pk)


@require_POST
def promote(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Promote: the staged version goes live."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    try:
        live = staging.PromoteStaged(policy=policy, expected_event=_event(request)).apply(by=access.actor(request))
    except (EditConflict, InvalidDocument, StagedConflict, StagedGone) as refusal:
        messages.error(request, f"{refusal} Nothing was promoted; review it again.")
        return redirect("policies:staged", policy.organization.key, policy.pk)
    messages.success(request, f"The staged version is now version {live.version} of {live.name}. The next run gets it.")
    return redirect("policies:view", policy.organization.key, policy.pk)


@require_POST
def discard(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Discard: no job gets the staged version any more; its text stays in the history."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    try:
        staging.discard(policy=policy, expected_event=_event(request), by=access.actor(request))
    except (StagedConflict, StagedGone) as refusal:
        messages.error(request, f"{refusal} Nothing was discarded; review it again.")
        return redirect("policies:staged", policy.organization.key, policy.pk)
    messages.success(request, "The staged version was discarded. Its text stays in the history.")
    return redirect("policies:view", policy.organization.key, policy.pk)


def _event(request: HttpRequest) -> int:
    return pagination.parse_row_id(request.POST.get("event", "")) or 0


def _again(request: HttpRequest, policy: Policy, text: str, conflict: EditConflict | StagedConflict) -> HttpResponse:
    """The submitted text stays in the editor; saving again applies it on top of the version shown."""
    policy = policy_of(policy.organization, policy.pk)
    current = queries.staged_of(policy)
    form = StageForm(initial=_initial(policy, current) | {"text": text})
    theirs = current.text if isinstance(conflict, StagedConflict) and current else policy.text
    rows = side_by_side(theirs, text)
    return _page(request, policy, form=form, status=409, conflict=str(conflict), conflict_rows=rows)


def _initial(policy: Policy, current: StagedVersion | None, add: Sequence[str] = ()) -> dict[str, object]:
    """The values of an unsaved form: the text with the endpoints that a link names, and what comes with them."""
    text = current.text if current else policy.text
    added = added_endpoints(add, compiler.listed(policy.organization, text))[0] if add else []
    return {
        "text": with_endpoints(text, added) or text,
        "version": policy.version,
        "event": current.event_id if current else None,
    }


def _page(
    request: HttpRequest,
    policy: Policy,
    *,
    form: StageForm | None = None,
    canaries_form: CanariesForm | None = None,
    add: Sequence[str] = (),
    status: int = 200,
    **more: object,
) -> HttpResponse:
    current = queries.staged_of(policy)
    form = form or StageForm(initial=_initial(policy, current, add))
    context = {
        "organization": policy.organization,
        "policy": policy,
        "staged": current,
        "canaries": _canaries(policy, current),
        "moved_on": current is not None and staging.has_moved_on(policy, current),
        "rows": side_by_side(policy.text, current.text) if current else [],
        "reply": json.dumps(read_reply(current.served_reply), indent=2) if current else "",
        "form": form,
        "canaries_form": canaries_form or CanariesForm(),
        "attached": queries.attachments_of(policy)[:SCOPES_OFFERED],
        **problem_context(compiler.check(policy.organization, str(form["text"].value() or "")).problems),
        **more,
    }
    return render(request, "policies/staged.html", context, status=status)


def _canaries(policy: Policy, current: StagedVersion | None) -> list[tuple[Scope, bool]]:
    """Each canary scope, and whether any of its jobs can get the policy still."""
    scopes = [canary.scope for canary in current.canaries.all()] if current else []
    covered = {scope.key for scope in staging.covered(policy, scopes)}
    return [(scope, scope.key in covered) for scope in scopes]
