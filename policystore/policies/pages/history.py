"""The history pages, their filters, and the export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET

from policystore.accounts import access
from policystore.audit_log import export as exports
from policystore.audit_log import timeline
from policystore.audit_log.hash_chain import ACCOUNTS, HISTORY, Ledger
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.core import queries
from policystore.policies.pages.forms import ExportForm, HistoryFilterForm
from policystore.policies.pages.get_or_404 import get_history_subject
from policystore.web import pagination

SubjectType = HistoryEvent.SubjectType
READ = "audit_log.view_historyevent"
NOT_KEPT = ("before", "full")
TOO_LONG = """\
This takes longer than the {seconds} seconds that a page has. Export less at once, by from and to, such as
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
        return _plain(422, *(f"{name}: {error}" for name, errors in form.errors.items() for error in errors))
    chosen = form.cleaned_data["format"] or "csv"
    content_type, write = exports.FORMATS[chosen]
    found = exports.rows(organization, form.chosen(organization), of=form.cleaned_data["of"])
    name = f"history-{organization.key}.{chosen}".replace(":", "-")
    try:
        file = exports.in_file(write(found), seconds=settings.PAGE_SECONDS)
    except exports.TooLong:
        return _plain(503, *TOO_LONG.format(seconds=settings.PAGE_SECONDS, organization=organization.key).splitlines())
    return FileResponse(file, as_attachment=True, filename=name, content_type=f"{content_type}; charset=utf-8")


def _plain(status: int, *lines: str) -> HttpResponse:
    return HttpResponse("\n".join(lines), status=status, content_type="text/plain; charset=utf-8")


def page(
    request: HttpRequest,
    organization: Organization,
    about: Mapping[str, Any],
    *,
    subject: tuple[str, int] | None = None,
    template: str = "policies/history.html",
) -> HttpResponse:
    """A page of events, of one policy or other subject where its type and id are given; `about` is for the template."""
    form = HistoryFilterForm(request.GET, without=("policy",) if subject else ())
    context = {**_about(request, organization, form), **about}
    if subject:
        of_subject = urlencode({"subject_type": subject[0], "subject_id": subject[1]})
        context["export_query"] = f"{context['kept']}{of_subject}&"
    if not form.is_valid():
        return render(request, template, context, status=422)
    wanted = form.wanted(organization, subject=subject)
    found = timeline.history_page(
        wanted.events(organization),
        before=request.GET.get("before", ""),
        full=pagination.parse_row_id(request.GET.get("full", "")),
        among=wanted.looked_through(organization),
    )
    next_query = f"?{context['kept']}before={found.next_cursor}" if found.next_cursor else ""
    return render(request, template, {**context, "page": found, "next_query": next_query})


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
