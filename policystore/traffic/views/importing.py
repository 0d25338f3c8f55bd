"""Import Endpoints from Baseline: choose where from, see what is new, leave out what should not be, go on editing."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from policystore.accounts import access
from policystore.documents import suggest
from policystore.documents.document import written_endpoints
from policystore.documents.entries import Entry, clean
from policystore.inventory.models import Organization
from policystore.traffic import baselines
from policystore.traffic.baselines import BaselineScope

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


class UnreadableFile(ValueError):
    """The chosen file is no list of endpoints."""


@require_POST
def import_endpoints(request: HttpRequest, owner: str) -> HttpResponse:
    """The page between the editor and itself: it carries the unsaved policy along."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    source = request.POST.get("source", "")
    refusal, rows = "", None
    try:
        if source:
            rows = _rows(request, organization, source)
    except UnreadableFile as error:
        refusal = str(error)
    context = {
        "organization": organization,
        "carried": {name: request.POST.get(name, "").replace("\r\n", "\n") for name in CARRIED},
        "policy_id": int(request.POST["policy"]) if request.POST.get("policy", "").isdecimal() else None,
        "sources": SOURCES,
        "source": source,
        "target": request.POST.get("target", ""),
        "targets": _targets(organization, source),
        "rows": rows,
        "suggestions": suggest.wildcards(endpoint for endpoint, listed in rows or [] if not listed),
        "new": sum(not listed for _, listed in rows or []),
        "refusal": refusal,
    }
    return render(request, "traffic/import.html", context, status=422 if refusal else 200)


def _rows(request: HttpRequest, organization: Organization, source: str) -> list[tuple[str, bool]] | None:
    """Each endpoint of the source, and whether the policy lists it already; None while the target is not chosen."""
    if source == "file":
        found = _of_file(request)
    else:
        scope = _scope(source, request.POST.get("target", ""))
        if scope is None:
            return None
        found = [endpoint.written for endpoint in baselines.endpoints(organization, scope)]
    listed = {_cleaned(entry) for entry in written_endpoints(request.POST.get("text", "").replace("\r\n", "\n"))}
    return [(endpoint, endpoint in listed) for endpoint in found]


def _scope(source: str, target: str) -> BaselineScope | None:
    if source == "organization":
        return BaselineScope()
    if not target:
        return None
    if source == "repository":
        return BaselineScope(repository=target)
    if source == "cluster":
        return BaselineScope(cluster=target)
    repository, workflow, job, cluster = (*target.split("\n"), "", "", "")[:4]
    return BaselineScope(repository=repository, workflow=workflow, job=job, cluster=cluster, is_job=True)


def _of_file(request: HttpRequest) -> list[str]:
    upload = request.FILES.get("file")
    if upload is None:
        raise UnreadableFile("Choose a file with one endpoint a line.")
    if (upload.size or 0) > MAX_FILE_BYTES:
        raise UnreadableFile("The file has more than 256 KiB; that is no list of endpoints.")
    try:
        lines = upload.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableFile("The file is no text in UTF-8.") from error
    found: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        for word in line.partition("#")[0].split():
            endpoint, problems = clean(Entry(word, number, 1))
            if endpoint is None:
                raise UnreadableFile(f"Line {number}: {problems[0].message} {problems[0].hint}".strip())
            found.setdefault(endpoint)
    return list(found)


def _cleaned(entry: str) -> str:
    endpoint, _ = clean(Entry(entry, 1, 1))
    return endpoint or entry


def _targets(organization: Organization, source: str) -> list[tuple[str, str]]:
    """What can be chosen for a source: (value, label)."""
    if source == "repository":
        rows = baselines.repositories(organization)[:TARGETS_SHOWN]
        return [(str(row["repository"]), str(row["repository"])) for row in rows]
    if source == "cluster":
        return [(str(row["cluster"]), str(row["cluster"])) for row in baselines.clusters(organization)[:TARGETS_SHOWN]]
    if source == "job":
        names = ("repository", "workflow", "job", "cluster")
        rows = baselines.jobs(organization)[:TARGETS_SHOWN]
        return [
            ("\n".join(str(row[name]) for name in names), baselines.item(row, is_job=True).scope.label) for row in rows
        ]
    return []
