"""The history pages, their filters and the export; the versions of a policy: listed, shown, compared and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from policystore.accounts import access
from policystore.audit_log import export as exports
from policystore.audit_log import timeline
from policystore.audit_log.hash_chain import ACCOUNTS, HISTORY, Ledger
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.core import actions as policies
from policystore.policies.core import queries, versions
from policystore.policies.core.versions import Subject, Version
from policystore.policies.errors import EditConflict, InvalidDocument, PolicyError, PolicyGone
from policystore.policies.models import Policy
from policystore.policies.pages.forms import CompareForm, ExportForm, HistoryFilterForm, RestoreForm
from policystore.policies.pages.get_or_404 import get_history_subject, get_policy
from policystore.policy_language.problems import Problem
from policystore.web import csv_export, pagination

SubjectType = HistoryEvent.SubjectType
READ = "audit_log.view_historyevent"
NOT_KEPT = ("before", "diff", "full")
TOO_LONG = """\
This takes longer than the {seconds} seconds that a page has. Export a shorter period, for example with
from=2026-01-01&to=2026-01-31, or ask the person who runs the store to write it to a file:
manage.py export_history --organization {organization} --output history.csv
"""


@require_GET
def policy_history(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Every change to one policy, also after it was deleted."""
    subject = get_history_subject(request, owner, policy_id, READ)
    about = {"policy": subject.policy, "policy_name": subject.name, "policy_id": subject.policy_id}
    return page(request, subject.organization, about, subject=(SubjectType.POLICY, subject.policy_id))


@require_GET
def organization_history(request: HttpRequest, owner: str) -> HttpResponse:
    """Every change to any policy of the organization."""
    return page(request, access.get_organization(request, owner, READ), {})


@require_GET
def account_history(request: HttpRequest, owner: str) -> HttpResponse:
    """Changes to keys, members and settings of the organization."""
    organization = access.get_organization(request, owner, READ)
    form = HistoryFilterForm(request.GET, without=("policy", "scope", "kind"))
    context = _about(request, organization, form, ACCOUNTS)
    if not form.is_valid():
        return render(request, "policies/account_history.html", context, status=422)
    events = form.wanted(organization).account_events(organization)
    context["page"] = timeline.account_page(events, before=request.GET.get("before", ""))
    return render(request, "policies/account_history.html", context)


@require_GET
def export(request: HttpRequest, owner: str) -> HttpResponseBase:
    """Everything that fits, as CSV or JSON Lines: all of it, or a refusal where that takes longer than a page may."""
    organization = access.get_organization(request, owner, READ)
    form = ExportForm(request.GET)
    if not form.is_valid():
        problems = (f"{name}: {error}" for name, errors in form.errors.items() for error in errors)
        return HttpResponse("\n".join(problems), status=422, content_type="text/plain; charset=utf-8")
    chosen = form.cleaned_data["format"] or "csv"
    content_type, write = exports.FORMATS[chosen]
    found = exports.rows(organization, form.chosen(organization), of=form.cleaned_data["of"])
    too_long = TOO_LONG.format(seconds=settings.PAGE_SECONDS, organization=organization.key)
    name = f"history-{organization.key}.{chosen}"
    return csv_export.respond(name, content_type, write(found), too_long=too_long)


def page(
    request: HttpRequest,
    organization: Organization,
    about: Mapping[str, Any],
    *,
    subject: tuple[str, int] | None = None,
    template: str = "policies/history.html",
) -> HttpResponse:
    """A page of events, of one policy or other subject where its type and id are given; `about` is for the template.

    It shows the diff of the event that `diff` or, with all lines, `full` names: the diffs of all would be a long page.
    """
    form = HistoryFilterForm(request.GET, without=("policy",) if subject else ())
    context = {**_about(request, organization, form), **about}
    if subject:
        of_subject = urlencode({"subject_type": subject[0], "subject_id": subject[1]})
        context["export_query"] = f"{context['kept']}{of_subject}&"
    if not form.is_valid():
        return render(request, template, context, status=422)
    wanted = form.wanted(organization, subject=subject)
    full = pagination.parse_row_id(request.GET.get("full", ""))
    found = timeline.history_page(
        wanted.events(organization),
        before=request.GET.get("before", ""),
        full=full,
        among=wanted.looked_through(organization),
    )
    next_query = f"?{context['kept']}before={found.next_cursor}" if found.next_cursor else ""
    shown = full or pagination.parse_row_id(request.GET.get("diff", ""))
    return render(request, template, {**context, "page": found, "shown": shown, "next_query": next_query})


def _about(
    request: HttpRequest, organization: Organization, form: HistoryFilterForm, ledger: Ledger = HISTORY
) -> dict[str, Any]:
    kept = request.GET.copy()
    for name in NOT_KEPT:
        kept.pop(name, None)
    query = f"{kept.urlencode()}&" if kept else ""
    before = request.GET.get("before", "")
    return {
        "organization": organization,
        "form": form,
        "people": queries.people(organization),
        "check": queries.history_check(organization, ledger.name),
        "integrity_problems": queries.integrity_problems(organization),
        "is_narrowed": form.is_narrowed(),
        "kept": query,
        "page_query": f"{query}{urlencode({'before': before})}&" if before else query,
        "export_query": f"{query}of=accounts&" if ledger is ACCOUNTS else query,
    }


@require_GET
def version_list(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Every version, newest first, with two to choose for a comparison."""
    subject = get_history_subject(request, owner, policy_id, READ)
    page = versions.page(subject, before=request.GET.get("before", ""))
    return render(request, "policies/versions.html", {**_about_subject(subject), "page": page})


@require_GET
def version(request: HttpRequest, owner: str, policy_id: int, number: int) -> HttpResponse:
    """A version, read-only: its text and what runners got."""
    subject = get_history_subject(request, owner, policy_id, READ)
    shown, newest = _version(subject, number), versions.latest(subject)
    context = {
        **_about_subject(subject),
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
    context = {**_about_subject(subject), "form": form, "newest": newest}
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
        refusal = f"{conflict} Nothing was restored; review what would change now."
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
        **_about_subject(subject),
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


def _about_subject(subject: Subject) -> dict[str, object]:
    return {
        "organization": subject.organization,
        "policy": subject.policy,
        "policy_id": subject.policy_id,
        "policy_name": subject.name,
    }
