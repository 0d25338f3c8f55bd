"""Harden Runner → Baseline: what an organization, its repositories, clusters and jobs call.

Import Endpoints from Baseline, too: choose a source, see what is new, deselect endpoints, and return to the editor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies import compiler, endpoint_sets
from policystore.policies.pages import editing
from policystore.policies.pages.forms import sent_text
from policystore.policy_language import values, wildcard_suggestions
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.endpoint_parser import Entry, clean, unlistable
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope
from policystore.web import csv_export, pagination
from policystore.web.json_api import storable
from policystore.web.pagination import links, tabs

PERMISSION = "runners.view_jobrun"
Part = Callable[[HttpRequest, Organization, BaselineScope], dict[str, object]]
SOURCES = (
    ("organization", "Organization"),
    ("repository", "Repository"),
    ("cluster", "ARC Cluster"),
    ("job", "Job"),
    ("file", "Local file"),
)
TARGETS_SHOWN = 200
MAX_FILE_BYTES = 256 * 1024
MAX_WORDS = 2000
SKIPPED_SHOWN = 20
CARRIED = ("name", "description", "text", "version", "policy")
# Each order and the heading of its column.
ENDPOINT_COLUMNS = (("", "Endpoint"), ("calls", "Calls"), ("runs", "Runs"), ("jobs", "Jobs"), ("last", "Last seen"))
EXPORTED_ENDPOINTS: csv_export.Columns[baseline.Endpoint] = {
    name: attrgetter(name) for name in ("host", "port", "calls", "runs", "jobs", "first_seen_at", "last_seen_at")
}
EXPORTED_SCOPES: csv_export.Columns[baseline.Item] = {
    **{name: attrgetter(f"scope.{name}") for name in ("repository", "workflow", "job", "cluster")},
    **{name: attrgetter(name) for name in ("endpoints", "calls", "last_seen_at")},
}


@dataclass(frozen=True, slots=True)
class ImportRow:
    """An endpoint to import, whether the policy lists it, and the verdict of the policy's list on a call to it.

    `refusal` says why no policy can list it, or is empty.
    """

    endpoint: str
    listed: bool
    verdict: Verdict
    refusal: str

    @property
    def is_new(self) -> bool:
        """True if it can be imported and would add something."""
        return not (self.listed or self.verdict is Verdict.ALLOWED or self.refusal)


class InvalidSource(ValueError):
    """No source is chosen, or the chosen file cannot be read. `str()` says what to do."""


@require_GET
def view(request: HttpRequest, owner: str) -> HttpResponseBase:
    """The baseline of the repository, cluster or job in the query string, or of the whole organization.

    Its endpoints as CSV, too.
    """
    organization = access.get_organization(request, owner, PERMISSION)
    scope, show, search = scope_of(request), request.GET.get("show", ""), _text(request, "q")
    if csv_export.is_requested(request):
        rows = baseline.endpoints(organization, scope, search=search)
        return csv_export.download(f"baseline-{organization.key}", EXPORTED_ENDPOINTS, rows)
    _, part = PARTS.get(show, PARTS[""])
    labels = ((value, label) for value, (label, _) in PARTS.items())
    context = {
        "organization": organization,
        "scope": scope,
        "tab": scope.type,
        "search": search,
        "stability": baseline.stability(organization, scope),
        "changed_at": baseline.changed_at(organization, scope),
        "parts": tabs(labels, {**scope.parameters, "show": show}, "show"),
        **part(request, organization, scope),
    }
    return render(request, "traffic/baseline.html", context)


@require_GET
def scopes(request: HttpRequest, owner: str, kind: str) -> HttpResponseBase:
    """A row per repository, ARC cluster or job (`kind`); or all of these as CSV."""
    organization = access.get_organization(request, owner, PERMISSION)
    search = _text(request, "q")
    if csv_export.is_requested(request):
        rows = baseline.first_items(organization, kind, search=search)
        return csv_export.download(f"baseline-{kind}-{organization.key}", EXPORTED_SCOPES, rows)
    page = baseline.items_page(organization, kind, search=search, after=request.GET.get("after", ""))
    states = baseline.stabilities(organization, [item.scope for item in page.rows])
    context = {
        "organization": organization,
        "tab": kind,
        "search": search,
        "items": list(zip(page.rows, states, strict=True)),
        **links(page, {"q": search}, cursor="after"),
    }
    return render(request, "traffic/baseline_list.html", context)


@require_GET
def create_policy(request: HttpRequest, owner: str) -> HttpResponse:
    """Create Policy: the new policy page with the baseline's endpoints filled in, under the chosen wildcards."""
    organization = access.get_organization(request, owner, "policies.add_policy")
    endpoints = [endpoint.text for endpoint in baseline.endpoints(organization, scope_of(request))]
    suggested = {suggestion.wildcard for suggestion in wildcard_suggestions.wildcards(endpoints)}
    chosen = [wildcard for wildcard in request.GET.getlist("wildcard") if wildcard in suggested]
    exported = f"{reverse('baseline:export', args=[organization.key])}?{request.GET.urlencode()}"
    return editing.begin(request, organization, [*endpoints, *chosen], export=exported)


@require_GET
def export(request: HttpRequest, owner: str) -> HttpResponse:
    """Export Endpoints: one per line, for Import; endpoints that no policy can list are comments."""
    organization = access.get_organization(request, owner, PERMISSION)
    scope = scope_of(request)
    endpoints = [endpoint.text for endpoint in baseline.endpoints(organization, scope)]
    lines = [f"# {endpoint}" if unlistable(endpoint) else endpoint for endpoint in endpoints]
    name = "-".join(part for part in (organization.key, scope.repository, scope.job, scope.cluster) if part)
    safe = "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
    return HttpResponse(
        "".join(f"{line}\n" for line in lines),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{safe}-endpoints.txt"'},
    )


@require_GET
def words(request: HttpRequest, owner: str) -> HttpResponse:
    """What editors complete: the values of each key of a policy, and under "" the keys; at most MAX_WORDS of each."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    sets = endpoint_sets.sets_of(organization).values_list("name", flat=True)
    return JsonResponse(
        {
            "": [f"{key}:" for key in values.KNOWN_KEYS],
            "egress-policy": ["audit", "block"],
            **{key: ["true", "false"] for key in (*values.SWITCHES, "enabled")},
            "lockdown-mode": ["enabled:", "detections:"],
            "detections": [*values.DETECTION_TYPES],
            "endpoint-sets": list(sets[:MAX_WORDS]),
            "allowed-endpoints": [endpoint.text for endpoint in baseline.first_endpoints(organization, MAX_WORDS)],
        }
    )


def scope_of(request: HttpRequest) -> BaselineScope:
    """The scope in the query string; the organization if it names none. Raises Http404."""
    names = {name: _text(request, name) for name in ("repository", "workflow", "job", "cluster")}
    is_job = request.GET.get("of") == "job"
    if is_job and not names["repository"]:
        raise Http404("A job needs a repository.")
    return BaselineScope(**names, is_job=is_job)


def _text(request: HttpRequest, name: str) -> str:
    return storable(request.GET.get(name, ""))[:512]


def _endpoints(request: HttpRequest, organization: Organization, scope: BaselineScope) -> dict[str, object]:
    search, sort = _text(request, "q"), request.GET.get("sort", "")
    sort = sort if sort in baseline.ENDPOINT_ORDERS else ""
    page = baseline.endpoints_page(organization, scope, search=search, sort=sort, after=request.GET.get("after", ""))
    kept = {**scope.parameters, "q": search, "sort": sort}
    return {
        "page": page,
        "sort": sort,
        "columns": tabs(ENDPOINT_COLUMNS, kept, "sort"),
        **links(page, kept, cursor="after"),
    }


def _changelog(request: HttpRequest, organization: Organization, scope: BaselineScope) -> dict[str, object]:
    page = baseline.changelog_page(organization, scope, before=request.GET.get("after", ""))
    return {"changelog": page, **links(page, {**scope.parameters, "show": "changelog"}, cursor="after")}


def _wildcards(request: HttpRequest, organization: Organization, scope: BaselineScope) -> dict[str, object]:
    endpoints = baseline.endpoints(organization, scope)
    return {
        "suggestions": wildcard_suggestions.wildcards(endpoint.text for endpoint in endpoints),
        "asks_for_wildcards": True,
    }


PARTS: dict[str, tuple[str, Part]] = {
    "": ("Endpoints", _endpoints),
    "changelog": ("Changelog", _changelog),
    "wildcards": ("Suggested wildcards", _wildcards),
}


@require_POST
def import_endpoints(request: HttpRequest, owner: str) -> HttpResponse:
    """The import page, opened from the editor. It carries the unsaved policy along."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    form = {name: storable(sent_text(request.POST, name)) for name in ("source", "find", *CARRIED)}
    listed = compiler.listed(organization, form["text"])
    refusal, rows, skipped = "", None, list[str]()
    if "show" in request.POST:
        try:
            endpoints, skipped = _source_endpoints(request, organization, form["source"])
            rows = _rows(endpoints, listed)
        except InvalidSource as error:
            refusal = str(error)
    targets = [_Targets.of(request, organization, kind, form["find"]) for kind in baseline.LISTS]
    context = {
        "organization": organization,
        "carried": {name: form[name] for name in CARRIED},
        "policy_id": pagination.parse_row_id(form["policy"]),
        "sources": SOURCES,
        "source": form["source"],
        "find": form["find"],
        "targets": targets,
        "has_more": any(target.has_more for target in targets),
        "most_targets": TARGETS_SHOWN,
        "rows": rows,
        "skipped": skipped[:SKIPPED_SHOWN],
        "skipped_count": len(skipped),
        "more_skipped": max(len(skipped) - SKIPPED_SHOWN, 0),
        "suggestions": wildcard_suggestions.wildcards(
            (row.endpoint for row in rows or [] if row.is_new), listed=listed
        ),
        "new": sum(row.is_new for row in rows or []),
        "refusal": refusal,
    }
    return render(request, "traffic/import.html", context, status=422 if refusal else 200)


def _rows(endpoints: list[str], listed: list[str]) -> list[ImportRow]:
    """A row for each endpoint, those that no policy can list last."""
    exact, allowed = set(listed), AllowList.listed(listed)
    rows = [
        ImportRow(endpoint, endpoint in exact, allowed.verdict_of(endpoint), unlistable(endpoint))
        for endpoint in endpoints
    ]
    return sorted(rows, key=lambda row: bool(row.refusal))


def _source_endpoints(request: HttpRequest, organization: Organization, source: str) -> tuple[list[str], list[str]]:
    """The endpoints of the chosen source, and why lines of a file are left out. Raises InvalidSource."""
    if source == "file":
        return _endpoints_in_file(request)
    scope = _source_scope(source, storable(sent_text(request.POST, f"target_{source}")))
    return [endpoint.text for endpoint in baseline.endpoints(organization, scope)], []


def _source_scope(source: str, target: str) -> BaselineScope:
    if source == "organization":
        return BaselineScope()
    if source not in baseline.LISTS:
        raise InvalidSource("Choose where to import endpoints from.")
    if not target:
        raise InvalidSource(f"Choose an entry under “{dict(SOURCES)[source]}”, or another source.")
    names = dict(zip(baseline.LISTS[source].columns, target.split("\n"), strict=False))
    return BaselineScope(**names, is_job=source == "job")


def _endpoints_in_file(request: HttpRequest) -> tuple[list[str], list[str]]:
    """The endpoints of the uploaded file, each once, and why other entries are left out. Raises InvalidSource."""
    upload = request.FILES.get("file")
    if upload is None:
        raise InvalidSource("Choose a file with one endpoint per line.")
    if (upload.size or 0) > MAX_FILE_BYTES:
        raise InvalidSource("The file is too large (maximum 256 KiB).")
    try:
        lines = upload.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidSource("The file is not UTF-8 text.") from error
    endpoints: dict[str, None] = {}
    skipped = []
    for number, line in enumerate(lines, start=1):
        for word in line.partition("#")[0].split():
            endpoint, problems = clean(Entry(word, number, 1))
            if endpoint is None:
                skipped.append(f"Line {number}: {problems[0].message} {problems[0].hint}".strip())
            else:
                endpoints.setdefault(endpoint)
    return list(endpoints), skipped


@dataclass(frozen=True, slots=True)
class _Targets:
    """The repositories, clusters or jobs (`kind`) to choose from, as (value, label), and the chosen value."""

    kind: str
    label: str
    choices: list[tuple[str, str]]
    has_more: bool
    chosen: str

    @classmethod
    def of(cls, request: HttpRequest, organization: Organization, kind: str, find: str) -> _Targets:
        """The first targets whose names contain `find`."""
        items = baseline.first_items(organization, kind, search=find, limit=TARGETS_SHOWN + 1)
        columns = baseline.LISTS[kind].columns
        choices = [("\n".join(getattr(item.scope, name) for name in columns), item.scope.label) for item in items]
        chosen = storable(sent_text(request.POST, f"target_{kind}"))
        return cls(kind, dict(SOURCES)[kind], choices[:TARGETS_SHOWN], len(choices) > TARGETS_SHOWN, chosen)
