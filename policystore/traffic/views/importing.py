"""Import Endpoints from Baseline: choose where from, see what is new, leave out what should not be, go on editing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from policystore.accounts import access
from policystore.db import row_ids
from policystore.inventory.models import Organization
from policystore.policies.compile import context as compile_context
from policystore.policies.pages.forms import sent_text
from policystore.policy_language import wildcard_suggestions
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.policy_language.endpoint_parser import Entry, clean, unlistable
from policystore.traffic import baselines
from policystore.traffic.baselines import BaselineScope
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


LISTS: dict[str, tuple[Callable[..., baselines.Grouped], Order]] = {
    "repository": (baselines.repositories, baselines.REPOSITORIES),
    "cluster": (baselines.clusters, baselines.CLUSTERS),
    "job": (baselines.jobs, baselines.JOBS),
}


@dataclass(frozen=True, slots=True)
class Row:
    """An endpoint of the source, whether the policy lists it, and what its wildcards make of a call to it; `refusal`
    says why no policy can list it."""

    endpoint: str
    listed: bool
    verdict: Verdict
    refusal: str

    @property
    def is_new(self) -> bool:
        """Whether it can be imported, and that would add something."""
        return not (self.listed or self.verdict is Verdict.ALLOWED or self.refusal)


class UnreadableFile(ValueError):
    """The chosen file is no list of endpoints."""


@require_POST
def import_endpoints(request: HttpRequest, owner: str) -> HttpResponse:
    """The page between the editor and itself: it carries the unsaved policy along."""
    organization = access.get_organization(request, owner, "policies.change_policy")
    said = {name: _text(request, name) for name in ("source", "target", "target_of", "find", *CARRIED)}
    if "narrow" in request.POST or said["target_of"] not in ("", said["source"]):
        # The list to choose from becomes another one.
        said["target"] = ""
    refusal, rows, listed = "", None, compile_context.listed(organization, said["text"])
    try:
        rows = _rows(request, organization, said, listed)
    except UnreadableFile as error:
        refusal = str(error)
    targets = _targets(organization, said["source"], said["find"])
    context = {
        "organization": organization,
        "carried": {name: said[name] for name in CARRIED},
        "policy_id": row_ids.read(said["policy"]),
        "sources": SOURCES,
        "source": said["source"],
        "target": said["target"],
        "find": said["find"],
        "targets": targets[:TARGETS_SHOWN],
        "more_targets": len(targets) > TARGETS_SHOWN,
        "is_chosen_shown": any(value == said["target"] for value, _ in targets[:TARGETS_SHOWN]),
        "rows": rows,
        "suggestions": wildcard_suggestions.wildcards(
            (row.endpoint for row in rows or [] if row.is_new), listed=listed
        ),
        "new": sum(row.is_new for row in rows or []),
        "refusal": refusal,
    }
    return render(request, "traffic/import.html", context, status=422 if refusal else 200)


def _text(request: HttpRequest, name: str) -> str:
    said = sent_text(request.POST, name).replace("\0", "")
    return said.encode("utf-8", "replace").decode()


def _rows(
    request: HttpRequest, organization: Organization, said: dict[str, str], listed: list[str]
) -> list[Row] | None:
    """Each endpoint of the source, those last that no policy can list; None while no source or target is chosen.

    Raises UnreadableFile.
    """
    if said["source"] == "file":
        found = _of_file(request)
    else:
        scope = _scope(said["source"], said["target"])
        if scope is None:
            return None
        found = [endpoint.written for endpoint in baselines.endpoints(organization, scope)]
    exact, allowed = set(listed), AllowList.listed(listed)
    rows = [Row(endpoint, endpoint in exact, allowed.verdict_of(endpoint), unlistable(endpoint)) for endpoint in found]
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


def _targets(organization: Organization, source: str, find: str) -> list[tuple[str, str]]:
    """What can be chosen for a source: (value, label), one more than are shown where there are more."""
    if source not in LISTS:
        return []
    lister, order = LISTS[source]
    rows = lister(organization, search=find)[: TARGETS_SHOWN + 1]
    items = [(row, baselines.item(row, is_job=source == "job").scope.label) for row in rows]
    return [("\n".join(str(row[name]) for name in order.columns), label) for row, label in items]
