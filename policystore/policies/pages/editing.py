"""Creating, editing and deleting policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from policystore.accounts import access
from policystore.audit_log import timeline
from policystore.enforcers.policy import EffectivePolicy
from policystore.enforcers.registry import blocked_by_others
from policystore.inventory.models import Organization
from policystore.policies import compiler, endpoint_sets
from policystore.policies.core import actions as policies
from policystore.policies.core import queries
from policystore.policies.errors import EditConflict, PolicyError, PolicyGone
from policystore.policies.models import Policy
from policystore.policies.pages.forms import DeleteForm, PolicyForm, StageForm, sent_text
from policystore.policies.pages.get_or_404 import get_policy
from policystore.policy_language import editor as edit_document
from policystore.policy_language.diff import side_by_side
from policystore.policy_language.document import combined
from policystore.policy_language.editor import addition
from policystore.policy_language.endpoint_parser import cleaned, unlistable
from policystore.policy_language.problems import Problem, summary
from policystore.policy_language.yaml_reader import too_large

MAX_ADDED = 2000
SCOPES_SHOWN = 20
# What is put into the text without saving it: endpoints, or an endpoint set.
DRAFTED = frozenset({"add", "include"})
SETS_SHOWN = 100
STARTING_TEXT = "egress-policy: audit\nallowed-endpoints: >\n  api.github.com:443\n  github.com:443\n"


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, owner: str) -> HttpResponse:
    """Create policy."""
    organization = access.get_organization(request, owner, "policies.add_policy")
    if request.method != "POST" and "add" in request.GET:
        return begin(request, organization, request.GET.getlist("add"))
    if request.method != "POST":
        return _editor(request, organization, PolicyForm(initial={"text": STARTING_TEXT}))
    if DRAFTED & request.POST.keys():
        return _draft(request, organization)
    form = PolicyForm(request.POST)
    if form.is_valid():
        try:
            policy = policies.create(organization=organization, by=access.actor(request), **form.content())
        except PolicyError as refusal:
            form.add_error(refusal.field, str(refusal))
        else:
            messages.success(request, f"{policy.name} was created. It applies nowhere until you attach it.")
            return redirect("policies:view", organization.key, policy.pk)
    return _editor(request, organization, form, status=422)


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Edit policy; a save over a newer version is refused, and both texts are shown."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    rows = Policy.objects.select_related("organization")
    policy = rows.filter(pk=policy_id, organization=organization).first()
    if policy is None:
        return _gone(request, organization, policy_id)
    if request.method != "POST":
        said = {"name": policy.name, "description": policy.description, "text": policy.text, "version": policy.version}
        return _with_added(request, organization, said, request.GET.getlist("add"), policy=policy)
    if DRAFTED & request.POST.keys():
        return _draft(request, organization, policy=policy)
    form = PolicyForm(request.POST)
    if not form.is_valid():
        return _editor(request, organization, form, policy=policy, status=422)
    expected = form.cleaned_data["version"] or 0
    try:
        saved = policies.UpdatePolicy(policy=policy, expected_version=expected, **form.content()).apply(
            by=access.actor(request)
        )
    except EditConflict as conflict:
        return _conflict(request, organization, form, conflict.current)
    except PolicyGone:
        return _gone(request, organization, policy_id)
    except PolicyError as refusal:
        form.add_error(refusal.field, str(refusal))
        return _editor(request, organization, form, policy=policy, status=422)
    if saved.version == policy.version:
        messages.info(request, f"Nothing changed in {saved.name}.")
    else:
        messages.success(
            request, f"{saved.name} was updated; the next run that fetches it gets version {saved.version}."
        )
    return redirect("policies:view", organization.key, policy.pk)


def _gone(request: HttpRequest, organization: Organization, policy_id: int) -> HttpResponse:
    """The text entered for a policy that was deleted in the meantime, to be saved as a new policy."""
    if request.method != "POST" or not timeline.events_of(organization, policy_id).exists():
        raise Http404("This organization has no such policy; it may have been deleted.")
    if DRAFTED & request.POST.keys():
        return _draft(request, organization, status=409, gone=True)
    return _editor(request, organization, PolicyForm(request.POST), status=409, gone=True)


def begin(
    request: HttpRequest, organization: Organization, endpoints: Sequence[str], *, export: str = ""
) -> HttpResponse:
    """The new policy page with these endpoints filled in; `export` is the URL that downloads them, if there is one.

    The caller has checked access.
    """
    chosen, remarks = added_endpoints(endpoints, [])
    form = PolicyForm(initial={"text": _from_endpoints(chosen)})
    return _editor(request, organization, form, added=len(chosen), export=export, **remarks)


def added_endpoints(endpoints: Sequence[str], listed: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The endpoints to add to those that a policy lists, and remarks for the page: how many are `left_out` because a
    policy holds no more, why others are `unlistable`, and which are `also` added, see `editor.addition`.
    """
    single = [endpoint for endpoint in dict.fromkeys(endpoints) if len(endpoint.split()) == 1]
    refusals = {endpoint: unlistable(endpoint) for endpoint in single}
    chosen = addition((endpoint for text in single if not refusals[text] and (endpoint := cleaned(text))), listed)
    remarks = {
        "left_out": max(len(chosen.endpoints) - MAX_ADDED, 0),
        "unlistable": [refusal for refusal in refusals.values() if refusal],
        "also": chosen.also[:MAX_ADDED],
    }
    return list(chosen.endpoints[:MAX_ADDED]), remarks


def _draft(request: HttpRequest, organization: Organization, policy: Policy | None = None, **more: Any) -> HttpResponse:
    """The editor, unsaved, with endpoints or a set added to the submitted text, or to a new document."""
    values = PolicyForm(request.POST)
    values.is_valid()
    said = {name: request.POST.get(name, "") for name in ("name", "description", "version")}
    said["text"] = str(values.cleaned_data.get("text", ""))
    chosen = [] if "leave" in request.POST else request.POST.getlist("add")
    return _with_added(request, organization, said, chosen, policy=policy, **more)


def _with_added(
    request: HttpRequest,
    organization: Organization,
    said: dict[str, Any],
    endpoints: Sequence[str],
    *,
    policy: Policy | None,
    **more: Any,
) -> HttpResponse:
    text = said["text"]
    chosen, remarks = added_endpoints(endpoints, compiler.listed(organization, text) if endpoints else [])
    changed = with_endpoints(text, chosen) if text.strip() else _from_endpoints(chosen)
    result = {"not_added": chosen} if changed is None else {"added": len(chosen), **remarks}
    form = PolicyForm(initial={**said, "text": _with_set(text if changed is None else changed, request)})
    return _editor(request, organization, form, policy=policy, **result, **more)


def with_endpoints(text: str, endpoints: Sequence[str]) -> str | None:
    """The text with more endpoints; None where they cannot be put in, as in a text that is broken or in braces."""
    try:
        return edit_document.add_endpoints(text, endpoints) if endpoints else text
    except edit_document.CannotEdit:
        return None


def _with_set(text: str, request: HttpRequest) -> str:
    name = request.POST.get("include", "")
    try:
        return edit_document.include_set(text, name) if len(name.split()) == 1 else text
    except edit_document.CannotEdit:
        return text


def _from_endpoints(endpoints: list[str]) -> str:
    return edit_document.new_document({"egress-policy": "audit", "allowed-endpoints": endpoints})


@require_POST
def check(request: HttpRequest, owner: str) -> HttpResponse:
    """The problems of a text that is being written."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    text = sent_text(request.POST, "text")
    return render(request, "policies/edit.html#problems", _problems(organization, text))


@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Delete policy, once its name is typed."""
    policy = get_policy(request, owner, policy_id, "policies.delete_policy")
    form = DeleteForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["name"].strip() == policy.name:
            return _delete(request, policy)
        form.add_error("name", f"This is not the policy's name. Type {policy.name} to delete it.")
    context = {
        "organization": policy.organization,
        "policy": policy,
        "form": form,
        "attachments": queries.attachments_of(policy)[:SCOPES_SHOWN],
        "more_attachments": max(policy.attachment_count - SCOPES_SHOWN, 0),
    }
    return render(request, "policies/delete.html", context, status=422 if request.method == "POST" else 200)


def _delete(request: HttpRequest, policy: Policy) -> HttpResponse:
    try:
        policies.DeletePolicy(policy=policy).apply(by=access.actor(request))
        messages.success(request, f"{policy.name} was deleted. Its history stays.")
    except PolicyGone as gone:
        messages.info(request, str(gone))
    return redirect("policies:list", policy.organization.key)


def report_size(form: PolicyForm | StageForm) -> bool:
    """True if the text exceeds the size limit, which the form then reports. Such a text is too large to compare, so the
    conflict is shown once it is shorter."""
    problems = list(too_large(str(form.cleaned_data["text"])))
    for problem in problems:
        form.add_error("text", f"{problem.message} {problem.hint}")
    return bool(problems)


def _problems(organization: Organization, text: str) -> dict[str, object]:
    rules = compiler.for_text(organization, text)
    checked = rules.check(text)
    context = problem_context(checked.problems)
    if checked.document is None:
        return context
    endpoints = combined(checked.document, rules.sets.endpoints, rules.never_allow).endpoints
    return {**context, "blocked_by_others": blocked_by_others(EffectivePolicy(endpoints=endpoints))}


def problem_context(problems: Sequence[Problem]) -> dict[str, object]:
    """The template context of an editor's problems: themselves, their number, and what Ace shows beside the lines."""
    annotations = json.dumps([_annotation(problem) for problem in problems])
    return {"problems": problems, "verdict": summary(problems), "annotations": annotations}


def _annotation(problem: Problem) -> dict[str, object]:
    text = f"{problem.message} {problem.hint}".strip()
    # Ace calls notes “info”.
    kind = "info" if problem.severity == "note" else problem.severity
    return {"row": problem.line - 1, "column": problem.column - 1, "type": kind, "text": text}


def _editor(
    request: HttpRequest,
    organization: Organization,
    form: PolicyForm,
    *,
    policy: Policy | None = None,
    status: int = 200,
    **more: object,
) -> HttpResponse:
    text = str(form["text"].value() or "")
    sets = endpoint_sets.sets_of(organization)[:SETS_SHOWN]
    context = {"organization": organization, "form": form, "policy": policy, "sets": sets, **more}
    context |= _problems(organization, text)
    return render(request, "policies/edit.html", context, status=status)


def _conflict(request: HttpRequest, organization: Organization, form: PolicyForm, current: Policy) -> HttpResponse:
    """The person's text stays in the editor; saving again goes on top of the version that they now see beside it."""
    if report_size(form):
        return _editor(request, organization, form, policy=current, status=422)
    mine = str(form.cleaned_data["text"])
    again = PolicyForm(data={**form.cleaned_data, "version": current.version})
    rows = side_by_side(current.text, mine)
    return _editor(request, organization, again, policy=current, status=409, conflict=current, rows=rows)
