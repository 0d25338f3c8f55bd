"""Endpoint sets: the list, a set, its history, and changes. One that reaches policies is shown before it is saved."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.audit_log import timeline
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies import compiler, endpoint_sets
from policystore.policies.compiler import PoliciesWouldChange
from policystore.policies.errors import PolicyError, SetConflict, SetGone, SetInUse
from policystore.policies.models import EndpointSet
from policystore.policies.pages import history as history_pages
from policystore.policies.pages.editing import problem_context, report_size
from policystore.policies.pages.forms import EFFECTS_SHOWN, EndpointSetForm, sent_text
from policystore.policies.pages.get_or_404 import search_text
from policystore.policy_language.diff import side_by_side
from policystore.policy_language.endpoint_sets import check_set

SETS_PER_PAGE = 50
POLICIES_SHOWN = 200
STARTING_TEXT = "# What this set is for\ngithub.com:443\napi.github.com:443\n"


def get_set(request: HttpRequest, owner: str, set_id: int, permission: str) -> EndpointSet:
    """A set of an organization in which the person has the permission. Raises Http404 or PermissionDenied."""
    organization = access.get_organization(request, owner, permission)
    rows = EndpointSet.objects.select_related("organization")
    return get_object_or_404(rows, pk=set_id, organization=organization)


@require_GET
@vary_on_headers("HX-Request")
def list_sets(request: HttpRequest, owner: str) -> HttpResponse:
    """The organization's endpoint sets."""
    organization = access.get_organization(request, owner, "policies.view_endpointset")
    search = search_text(request.GET, "q")
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


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, owner: str) -> HttpResponse:
    """Create an endpoint set."""
    organization = access.get_organization(request, owner, "policies.change_endpointset")
    if request.method != "POST":
        return _editor(request, organization, EndpointSetForm(initial={"text": STARTING_TEXT}))
    form = EndpointSetForm(request.POST)
    if form.is_valid():
        try:
            made = endpoint_sets.create(organization=organization, by=access.actor(request), **form.content())
        except PolicyError as refusal:
            form.add_error(refusal.field, str(refusal))
        else:
            messages.success(request, f"{made.name} was created. Policies include it by endpoint-sets: {made.name}.")
            return redirect("endpoint-sets:view", organization.key, made.pk)
    return _editor(request, organization, form, status=422)


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, owner: str, set_id: int) -> HttpResponse:
    """Edit a set: written, then reviewed with the policies that it changes, then saved."""
    found = get_set(request, owner, set_id, "policies.change_endpointset")
    if request.method != "POST":
        initial = {name: getattr(found, name) for name in ("name", "description", "text", "version")}
        return _editor(request, found.organization, EndpointSetForm(initial=initial), found=found)
    form = EndpointSetForm(request.POST)
    if not form.is_valid() or request.POST.get("action") == "back":
        return _editor(request, found.organization, form, found=found, status=200 if form.is_valid() else 422)
    try:
        return _save(request, found, form)
    except PoliciesWouldChange as would_change:
        return _review(request, found, form, would_change)
    except SetConflict as conflict:
        return _conflict(request, form, conflict.current)
    except SetGone as gone:
        messages.error(request, f"{gone} Your text is below; save it as a new set.")
        return _editor(request, found.organization, form, status=409)
    except PolicyError as refusal:
        form.add_error(refusal.field, str(refusal))
        return _editor(request, found.organization, form, found=found, status=422)


@require_POST
def check(request: HttpRequest, owner: str) -> HttpResponse:
    """The problems of a set's text that is being written."""
    organization = access.get_organization(request, owner, "policies.change_endpointset")
    text = sent_text(request.POST, "text")
    return render(request, "endpoint_sets/edit.html#problems", _problems(organization, text))


@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, owner: str, set_id: int) -> HttpResponse:
    """Delete a set that no policy includes, after asking."""
    found = get_set(request, owner, set_id, "policies.change_endpointset")
    policies = endpoint_sets.policies_with(found).order_by("name_key").only("pk", "name")
    context = {"organization": found.organization, "set": found, "policies": policies[:EFFECTS_SHOWN]}
    if request.method != "POST":
        return render(request, "endpoint_sets/delete.html", context)
    try:
        endpoint_sets.delete(endpoint_set=found, by=access.actor(request))
        messages.success(request, f"{found.name} was deleted. Its history stays.")
    except SetGone as gone:
        messages.info(request, str(gone))
    except SetInUse as refusal:
        return render(request, "endpoint_sets/delete.html", {**context, "refusal": str(refusal)}, status=409)
    return redirect("endpoint-sets:list", found.organization.key)


def _save(request: HttpRequest, found: EndpointSet, form: EndpointSetForm) -> HttpResponse:
    saved, effects = endpoint_sets.UpdateEndpointSet(
        endpoint_set=found,
        expected_version=form.cleaned_data["version"] or 0,
        agreed=form.cleaned_data["agreed"],
        **form.content(),
    ).apply(by=access.actor(request))
    count = len(effects)
    if saved.version == found.version:
        messages.info(request, f"Nothing changed in {saved.name}.")
    elif effects:
        recompiled = "1 policy has" if count == 1 else f"{count} policies have"
        messages.success(request, f"{saved.name} was updated. {recompiled} a new version, which the next runs get.")
    else:
        messages.success(request, f"{saved.name} was updated. No policy changed.")
    return redirect("endpoint-sets:view", found.organization.key, found.pk)


def _review(
    request: HttpRequest, found: EndpointSet, form: EndpointSetForm, would_change: PoliciesWouldChange
) -> HttpResponse:
    context, status = form.review(would_change)
    context |= {
        "organization": found.organization,
        "set": found,
        "form": EndpointSetForm(data={**form.cleaned_data, "agreed": context["agreed"]}),
        "rows": side_by_side(found.text, form.cleaned_data["text"]),
    }
    return render(request, "endpoint_sets/review.html", context, status=status)


def _conflict(request: HttpRequest, form: EndpointSetForm, current: EndpointSet) -> HttpResponse:
    if report_size(form):
        return _editor(request, current.organization, form, found=current, status=422)
    again = EndpointSetForm(data={**form.cleaned_data, "version": current.version, "agreed": ""})
    rows = side_by_side(current.text, str(form.cleaned_data["text"]))
    return _editor(request, current.organization, again, found=current, status=409, conflict=current, rows=rows)


def _problems(organization: Organization, text: str) -> dict[str, object]:
    return problem_context(check_set(text, never_allow=compiler.never_allow_of(organization)).problems)


def _editor(
    request: HttpRequest,
    organization: Organization,
    form: EndpointSetForm,
    *,
    found: EndpointSet | None = None,
    status: int = 200,
    **more: object,
) -> HttpResponse:
    text = str(form["text"].value() or "")
    policies = endpoint_sets.policies_with(found).count() if found else 0
    context = {"organization": organization, "form": form, "set": found, "policy_count": policies}
    context |= _problems(organization, text) | more
    return render(request, "endpoint_sets/edit.html", context, status=status)
