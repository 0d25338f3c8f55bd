"""The versions of a policy: listed, shown, compared and restored."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from policystore.accounts import access
from policystore.policies.core import actions as policies
from policystore.policies.core import versions
from policystore.policies.core.versions import Subject, Version
from policystore.policies.errors import EditConflict, InvalidDocument, PolicyError, PolicyGone
from policystore.policies.models import Policy
from policystore.policies.pages.forms import CompareForm, RestoreForm
from policystore.policies.pages.get_or_404 import get_history_subject, get_policy
from policystore.policy_language.problems import Problem

READ = "audit_log.view_historyevent"


@require_GET
def version_list(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Every version, newest first, with two to choose for a comparison."""
    subject = get_history_subject(request, owner, policy_id, READ)
    page = versions.page(subject, before=request.GET.get("before", ""))
    return render(request, "policies/versions.html", {**_about(subject), "page": page})


@require_GET
def version(request: HttpRequest, owner: str, policy_id: int, number: int) -> HttpResponse:
    """A version, read-only: its text and what runners got."""
    subject = get_history_subject(request, owner, policy_id, READ)
    shown, newest = _version(subject, number), versions.latest(subject)
    context = {
        **_about(subject),
        "version": shown,
        "lines": shown.text.splitlines(),
        "newest": newest,
        "earlier": number - 1 if number > 1 else None,
        "later": number + 1 if number < newest else None,
    }
    return render(request, "policies/version.html", context)


@require_GET
def compare(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Any two versions side by side; the last two where none are named."""
    subject = get_history_subject(request, owner, policy_id, READ)
    newest = versions.latest(subject)
    form = CompareForm({"from": max(newest - 1, 1), "to": newest, **request.GET.dict()})
    form.is_valid()
    before, after = _chosen(form, subject, "from"), _chosen(form, subject, "to")
    context = {**_about(subject), "form": form, "newest": newest}
    if before is None or after is None:
        return render(request, "policies/compare.html", context, status=422)
    comparison = versions.compare(before, after, full="full" in request.GET)
    context |= {"before": before, "after": after, "comparison": comparison}
    return render(request, "policies/compare.html", context)


@require_http_methods(["GET", "POST"])
def restore(request: HttpRequest, owner: str, policy_id: int, number: int) -> HttpResponse:
    """Make an earlier version the current one again, after showing what that changes."""
    policy = get_policy(request, owner, policy_id, "policies.change_policy")
    subject = get_history_subject(request, owner, policy_id, READ)
    wanted = _version(subject, number)
    if request.method != "POST":
        return _confirm(request, policy, wanted)
    form = RestoreForm(request.POST)
    form.is_valid()
    try:
        saved = policies.restore(
            version=wanted,
            policy=policy,
            expected_version=form.cleaned_data.get("version") or 0,
            with_name=bool(form.cleaned_data.get("with_name")),
            by=access.actor(request),
        )
    except EditConflict as conflict:
        refusal = f"{conflict} Nothing was restored; look at what would change now."
        return _confirm(request, conflict.current, wanted, refusal=refusal, status=409)
    except PolicyGone as gone:
        messages.error(request, str(gone))
        return redirect("policies:versions", policy.organization.key, policy_id)
    except InvalidDocument as invalid:
        return _confirm(request, policy, wanted, problems=invalid.problems, status=422)
    except PolicyError as refused:
        return _confirm(request, policy, wanted, refusal=str(refused), status=422)
    return _restored(request, policy, saved, wanted)


def _restored(request: HttpRequest, policy: Policy, saved: Policy, wanted: Version) -> HttpResponse:
    if saved.version == policy.version:
        messages.info(request, f"{saved.name} already matches version {wanted.number}. Nothing changed.")
    else:
        said = f"Version {wanted.number} of {saved.name} was restored"
        messages.success(request, f"{said}; the next run that fetches it gets version {saved.version}.")
    return redirect("policies:view", policy.organization.key, policy.pk)


def _confirm(
    request: HttpRequest,
    policy: Policy,
    wanted: Version,
    *,
    refusal: str = "",
    problems: tuple[Problem, ...] = (),
    status: int = 200,
) -> HttpResponse:
    subject = Subject(policy.organization, policy.pk, policy.name, policy)
    current = versions.current(policy)
    context = {
        **_about(subject),
        "version": wanted,
        "comparison": versions.compare(current, wanted),
        "current": current,
        "with_name": bool(request.POST.get("with_name")),
        "refusal": refusal,
        "problems": problems,
    }
    return render(request, "policies/restore.html", context, status=status)


def _version(subject: Subject, number: int) -> Version:
    found = versions.version(subject, number)
    if found is None:
        raise Http404(f"{subject.name} has no version {number}.")
    return found


def _chosen(form: CompareForm, subject: Subject, side: str) -> Version | None:
    """The version that the form names on this side; if there is none, the form has an error."""
    number = form.cleaned_data.get(side)
    found = versions.version(subject, number) if number else None
    if number and found is None:
        form.add_error(
            side, f"{subject.name} has no version {number}; choose one from 1 to {versions.latest(subject)}."
        )
    return found


def _about(subject: Subject) -> dict[str, object]:
    return {
        "organization": subject.organization,
        "policy": subject.policy,
        "policy_id": subject.policy_id,
        "policy_name": subject.name,
    }
