"""Reading endpoint sets: the list, a set, its history."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.audit_log import timeline
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies import compiler, endpoint_sets
from policystore.policies.models import EndpointSet
from policystore.policies.pages import history as history_pages
from policystore.policies.pages.get_or_404 import query_text
from policystore.policy_language.endpoint_sets import check_set

SETS_PER_PAGE = 50
POLICIES_SHOWN = 200


def get_set(request: HttpRequest, owner: str, set_id: int, permission: str) -> EndpointSet:
    """A set of an organization in which the person has the permission. Raises Http404 or PermissionDenied."""
    organization = access.get_organization(request, owner, permission)
    rows = EndpointSet.objects.select_related("organization")
    found = rows.filter(pk=set_id, organization=organization).first()
    if found is None:
        raise Http404("This organization has no such endpoint set; it may have been deleted.")
    return found


@require_GET
@vary_on_headers("HX-Request")
def list_sets(request: HttpRequest, owner: str) -> HttpResponse:
    """The organization's endpoint sets."""
    organization = access.get_organization(request, owner, "policies.view_endpointset")
    search = query_text(request, "q")
    page = Paginator(endpoint_sets.sets_of(organization, search), SETS_PER_PAGE).get_page(request.GET.get("page"))
    context = {"organization": organization, "page": page, "search": search}
    narrow = request.htmx and request.htmx.target == "sets"  # type: ignore[attr-defined]
    return render(request, "endpoint_sets/list.html#sets" if narrow else "endpoint_sets/list.html", context)


@require_GET
def view(request: HttpRequest, owner: str, set_id: int) -> HttpResponse:
    """A set: its endpoints, and the policies that include it."""
    endpoint_set = get_set(request, owner, set_id, "policies.view_endpointset")
    policies = endpoint_sets.policies_with(endpoint_set).order_by("name_key").defer("text", "reply", "search_text")
    count = policies.count()
    context = {
        "organization": endpoint_set.organization,
        "set": endpoint_set,
        "lines": endpoint_set.text.splitlines(),
        "problems": check_set(
            endpoint_set.text, never_allow=compiler.never_allow_of(endpoint_set.organization)
        ).problems,
        "policies": policies[:POLICIES_SHOWN],
        "policy_count": count,
        "more_policies": max(count - POLICIES_SHOWN, 0),
    }
    return render(request, "endpoint_sets/view.html", context)


@require_GET
def history(request: HttpRequest, owner: str, set_id: int) -> HttpResponse:
    """Every change to one set, also after it was deleted."""
    organization = access.get_organization(request, owner, "audit_log.view_historyevent")
    subject_type = HistoryEvent.SubjectType.ENDPOINT_SET
    last = timeline.events_of(organization, set_id, subject_type=subject_type).first()
    if last is None:
        raise Http404("This organization has no such endpoint set.")
    about, template = _subject(organization, last), "endpoint_sets/history.html"
    return history_pages.page(request, organization, about, subject=(subject_type, set_id), template=template)


def _subject(organization: Organization, last: HistoryEvent) -> dict[str, object]:
    found = EndpointSet.objects.filter(pk=last.subject_id, organization=organization).first()
    name = found.name if found else last.subject_name
    # By this the page of history knows that all of it is about one thing.
    return {"set": found, "subject_name": name, "policy_name": name}
