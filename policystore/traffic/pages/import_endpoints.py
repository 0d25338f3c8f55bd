"""Import Endpoints from Baseline: choose a source, see what is new, deselect endpoints, and return to the editor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from policystore.accounts import access
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.pages.forms import sent_text
from policystore.policy_language import wildcard_suggestions
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.endpoint_parser import Entry, clean, unlistable
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope
from policystore.web import pagination
from policystore.web.json_api import storable
from policystore.web.pagination import Order

SOURCES = (
    ("organization", "Organization"),
    ("repository", "Repository"),
    ("cluster", "ARC cluster"),
    ("job", "Job"),
    ("file", "Local file"),
)
TARGETS_SHOWN = 200
MAX_FILE_BYTES = 256 * 1024
CARRIED = ("name", "description", "text", "version", "policy")


LISTS: dict[str, tuple[Callable[..., baseline.Grouped], Order]] = {
    "repository": (baseline.repositories, baseline.REPOSITORIES),
    "cluster": (baseline.clusters, baseline.CLUSTERS),
    "job": (baseline.jobs, baseline.JOBS),
}


@dataclass(frozen=True, slots=True)
class Row:
    """An endpoint of the source, whether the policy lists it, and the verdict of the policy's list on a call to it.

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


class UnreadableFile(ValueError):
    """The chosen file is not a list of endpoints."""


@require_POST
def import_endpoints(request: HttpRequest, owner: str) -> HttpResponse:
    """The import page, opened from the editor. It carries the unsaved policy along."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    form = {name: _text(request, name) for name in ("source", "target", "target_of", "find", *CARRIED)}
    if "narrow" in request.POST or form["target_of"] not in ("", form["source"]):
        # The list of targets changes, so the chosen target does not apply.
        form["target"] = ""
    refusal, rows, listed = "", None, compiler.listed(organization, form["text"])
    try:
        rows = _rows(request, organization, form, listed)
    except UnreadableFile as error:
        refusal = str(error)
    targets = _targets(organization, form["source"], form["find"])
    context = {
        "organization": organization,
        "carried": {name: form[name] for name in CARRIED},
        "policy_id": pagination.parse_row_id(form["policy"]),
        "sources": SOURCES,
        "source": form["source"],
        "target": form["target"],
        "find": form["find"],
        "targets": targets[:TARGETS_SHOWN],
        "more_targets": len(targets) > TARGETS_SHOWN,
        "is_chosen_shown": any(value == form["target"] for value, _ in targets[:TARGETS_SHOWN]),
        "rows": rows,
        "suggestions": wildcard_suggestions.wildcards(
            (row.endpoint for row in rows or [] if row.is_new), listed=listed
        ),
        "new": sum(row.is_new for row in rows or []),
        "refusal": refusal,
    }
    return render(request, "traffic/import.html", context, status=422 if refusal else 200)


def _text(request: HttpRequest, name: str) -> str:
    return storable(sent_text(request.POST, name))


def _rows(
    request: HttpRequest, organization: Organization, form: dict[str, str], listed: list[str]
) -> list[Row] | None:
    """The source's endpoints, those that no policy can list last; None if no source or target is chosen yet.

    Raises UnreadableFile.
    """
    if form["source"] == "file":
        endpoints = _endpoints_in_file(request)
    else:
        scope = _scope(form["source"], form["target"])
        if scope is None:
            return None
        endpoints = [endpoint.text for endpoint in baseline.endpoints(organization, scope)]
    exact, allowed = set(listed), AllowList.listed(listed)
    rows = [
        Row(endpoint, endpoint in exact, allowed.verdict_of(endpoint), unlistable(endpoint)) for endpoint in endpoints
    ]
    return sorted(rows, key=lambda row: bool(row.refusal))


def _scope(source: str, target: str) -> BaselineScope | None:
    if source == "organization":
        return BaselineScope()
    if not target or source not in dict(SOURCES):
        return None
    if source == "repository":
        return BaselineScope(repository=target)
    if source == "cluster":
        return BaselineScope(cluster=target)
    repository, workflow, job, cluster = (*target.split("\n"), "", "", "")[:4]
    return BaselineScope(repository=repository, workflow=workflow, job=job, cluster=cluster, is_job=True)


def _endpoints_in_file(request: HttpRequest) -> list[str]:
    """The endpoints of the uploaded file, without duplicates. Raises UnreadableFile."""
    upload = request.FILES.get("file")
    if upload is None:
        raise UnreadableFile("Choose a file with one endpoint per line.")
    if (upload.size or 0) > MAX_FILE_BYTES:
        raise UnreadableFile("The file is too large (maximum 256 KiB).")
    try:
        lines = upload.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableFile("The file is not UTF-8 text.") from error
    endpoints: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        for word in line.partition("#")[0].split():
            endpoint, problems = clean(Entry(word, number, 1))
            if endpoint is None:
                raise UnreadableFile(f"Line {number}: {problems[0].message} {problems[0].hint}".strip())
            endpoints.setdefault(endpoint)
    return list(endpoints)


def _targets(organization: Organization, source: str, find: str) -> list[tuple[str, str]]:
    """The targets to choose from for a source, as (value, label): at most one more than are shown."""
    if source not in LISTS:
        return []
    lister, order = LISTS[source]
    rows = lister(organization, search=find)[: TARGETS_SHOWN + 1]
    items = [(row, baseline.item(row, is_job=source == "job").scope.label) for row in rows]
    return [("\n".join(str(row[name]) for name in order.columns), label) for row, label in items]
