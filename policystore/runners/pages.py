"""Pages about runners: runs, coverage, which policy applies, installation and the global blocklist."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from policystore.accounts import access
from policystore.accounts.models import ApiKey, KeyKind
from policystore.enforcers import github_firewall as firewall
from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from policystore.policies import compiler
from policystore.policies.firewall_files import Files
from policystore.policies.models import Policy
from policystore.policy_language import scopes
from policystore.runners import blocklist, job_runs, queries
from policystore.runners.clusters import PREFIX
from policystore.runners.explain import STEP_INPUTS, ExplainForm, explain
from policystore.runners.fetch.query import UnservablePolicy
from policystore.runners.models import BlocklistEntry, JobRun
from policystore.web import csv_export
from policystore.web.json_api import storable
from policystore.web.pagination import EXPORTED_AT_A_TIME, every_row, links, render_list, tabs

ARC_VALUES = "arc-values.yaml"
# The templates of the scripts, by name, and their labels.
SCRIPTS = {
    "install-job-hooks.sh": "Linux",
    "install-job-hooks.ps1": "Windows",
    ARC_VALUES: "Actions Runner Controller (Helm values)",
}
EXPORTED_RUNS: csv_export.Columns[JobRun] = {
    "repository": attrgetter("repository"),
    "workflow": attrgetter("workflow"),
    "job": attrgetter("job"),
    "run_id": attrgetter("run_id"),
    "correlation_id": attrgetter("correlation_id"),
    "cluster": attrgetter("cluster"),
    "policy": attrgetter("policy_name"),
    "policy_version": attrgetter("policy_version"),
    "mode": attrgetter("egress_policy"),
    "enforcement": attrgetter("enforcement"),
    "verified_by": attrgetter("verified_by"),
    "calls": attrgetter("calls"),
    "blocked_calls": attrgetter("blocked_calls"),
    "new_endpoints": attrgetter("new_endpoints"),
    "first_seen_at": attrgetter("first_seen_at"),
}
EXPORTED_COVERAGE: csv_export.Columns[queries.Covered] = {
    "repository": attrgetter("repository"),
    "workflow": attrgetter("workflow"),
    "policy": attrgetter("policy_name"),
    "attached_to": lambda row: row.scope.type if row.scope else "",
    "mode": attrgetter("mode"),
    "version": attrgetter("policy_version"),
    "last_fetch_at": attrgetter("fetched_at"),
    "version_fetched": attrgetter("served_version"),
    "is_outdated": attrgetter("is_outdated"),
    "enforcement": attrgetter("enforcement"),
}
CLUSTERS_OFFERED = 500
HTTPS_PORT = 443
ENTRIES_PER_PAGE = 50
MAX_SUGGESTIONS = 500


class FirewallForm(forms.Form):
    """The repository whose file is shown, and the one that it has now."""

    repository = forms.CharField(max_length=255, required=False)
    no_default_urls = forms.BooleanField(required=False, label="Without GitHub's own default list")
    committed = forms.CharField(
        required=False,
        max_length=100_000,
        strip=False,
        label="The file that is committed",
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
    )


class BlocklistForm(forms.Form):
    """A destination to block, and the reason."""

    endpoint = forms.CharField(max_length=255, label="IPv4 address, domain or *.domain")
    reason = forms.CharField(max_length=200, label="Reason")


class ClusterForm(forms.Form):
    """The ARC cluster that Helm values are for; may be empty."""

    cluster = forms.CharField(max_length=253, required=False, label="Cluster")

    def clean_cluster(self) -> str:
        """Refuse invalid cluster names."""
        try:
            return scopes.cluster_name(self.cleaned_data["cluster"]) if self.cleaned_data["cluster"] else ""
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error


@require_GET
@vary_on_headers("HX-Request")
def run_list(request: HttpRequest, owner: str) -> HttpResponseBase:
    """Show a page of job runs, newest first, filtered by search and tag; or all of these as CSV."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    filters = {name: _text(request, name) for name in ("repository", "workflow", "q", "tag")}
    read = partial(
        queries.run_page,
        organization,
        repository=filters["repository"],
        workflow=filters["workflow"],
        search=filters["q"],
        tag=filters["tag"],
    )
    if csv_export.is_requested(request):
        rows = every_row(lambda cursor: read(before=cursor, size=EXPORTED_AT_A_TIME))
        return csv_export.download(f"runs-{organization.key}", EXPORTED_RUNS, rows)
    page = read(before=request.GET.get("before", ""))
    context = {
        "organization": organization,
        "page": page,
        "search": filters["q"],
        "tag": filters["tag"],
        "chosen": filters,
        "tags": tabs(((tag, label) for tag, (label, _) in queries.RUN_TAGS.items()), filters, "tag"),
        **links(page, filters),
    }
    return render_list(request, "runners/runs.html", "runs", context)


@require_POST
def count_unverified(request: HttpRequest, owner: str, cluster_id: int) -> HttpResponse:
    """Count the unverified jobs of a cluster (`counts=1`), or stop counting them."""
    organization = access.get_organization(request, owner, "inventory.change_cluster")
    cluster = get_object_or_404(Cluster, organization=organization, pk=cluster_id)
    counts = request.POST.get("counts") == "1"
    job_runs.count_unverified(cluster=cluster, counts=counts, by=access.actor(request))
    verb = "count now" if counts else "no longer count"
    messages.success(request, f"Unverified jobs of {cluster.name} {verb}.")
    return redirect("settings:inventory", organization.key)


def _text(request: HttpRequest, name: str) -> str:
    return storable(request.GET.get(name, "")).strip()[:512]


@require_GET
@vary_on_headers("HX-Request")
def runs_of_policy(request: HttpRequest, owner: str, policy_id: int) -> HttpResponse:
    """Show how the latest job runs used a policy: a page, or for htmx the sentence on the policy's page."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    policy = get_object_or_404(Policy, organization=organization, pk=policy_id)
    context = {
        "organization": organization,
        "policy": policy,
        "use": queries.use_of_policy(organization, policy.pk),
    }
    part = "#sentence" if request.htmx else ""  # type: ignore[attr-defined]
    return render(request, f"runners/of_policy.html{part}", context)


@require_GET
@vary_on_headers("HX-Request")
def coverage_page(request: HttpRequest, owner: str) -> HttpResponseBase:
    """Show a page of workflows, filtered by search and counter; or all of these as CSV."""
    organization = access.get_organization(request, owner, "runners.view_jobrun")
    search = _text(request, "q")[:200]
    show = request.GET.get("show", "")
    read = partial(queries.coverage_page, organization, search=search, show=show)
    if csv_export.is_requested(request):
        rows = every_row(lambda cursor: read(after=cursor, size=EXPORTED_AT_A_TIME))
        return csv_export.download(f"coverage-{organization.key}", EXPORTED_COVERAGE, rows)
    page = read(after=request.GET.get("after", ""))
    filters = {"q": search, "show": show}
    choices = tabs(((name, label) for name, (label, _) in queries.COVERAGE_FILTERS.items()), filters, "show")
    counts = queries.coverage_counts(organization, search)
    context = {
        "organization": organization,
        "page": page,
        "search": search,
        "show": show,
        "counters": [{**choice, "number": counts[name]} for name, choice in zip(counts, choices, strict=True)],
        **links(page, filters, cursor="after"),
    }
    return render_list(request, "runners/coverage.html", "coverage", context)


@require_GET
def explain_page(request: HttpRequest, owner: str) -> HttpResponse:
    """Show a form for a job and its step's inputs, and below it what the job gets and why."""
    organization = access.get_organization(request, owner, "policies.view_policy")
    form = ExplainForm(request.GET, owner=organization.login)
    context = {
        "organization": organization,
        "form": form,
        "inputs_set": any(request.GET.get(form.add_prefix(name)) for name in STEP_INPUTS),
        **_suggestions(organization, request.GET.get("repository", "")),
    }
    if not form.is_valid():
        return render(request, "runners/explain.html", context, status=422)
    try:
        explanation = explain(organization, form.job, form.inputs, endpoint=form.cleaned_data["endpoint"])
    except UnservablePolicy as error:
        return render(request, "runners/explain.html", {**context, "problem": str(error)}, status=503)
    return render(request, "runners/explain.html", {**context, "job": form.job, "found": explanation})


def _suggestions(organization: Organization, repository: str) -> dict[str, object]:
    """Return what the fields suggest: known repositories and clusters, and the workflows of `repository`."""
    repositories = Repository.objects.filter(organization=organization).order_by("key")
    key = storable(repository).strip().lower()
    workflows = Workflow.objects.filter(repository__organization=organization, repository__key=key)
    clusters = Cluster.objects.filter(organization=organization).order_by("name")
    return {
        "repositories": repositories.values_list("name", flat=True)[:MAX_SUGGESTIONS],
        "workflows": workflows.order_by("file_name").values_list("file_name", flat=True)[:MAX_SUGGESTIONS],
        "clusters": clusters.values_list("name", flat=True)[:MAX_SUGGESTIONS],
    }


@require_GET
def job_hooks(request: HttpRequest, owner: str) -> HttpResponse:
    """Show Runner Job Hooks: the scripts for Linux and Windows, and a cluster's Helm values for ARC, ready to use."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    form = ClusterForm(request.GET)
    cluster = form.cleaned_data["cluster"] if form.is_valid() else ""
    context = {
        "organization": organization,
        "form": form,
        "cluster": cluster,
        "clusters": Cluster.objects.filter(organization=organization)[:CLUSTERS_OFFERED],
        **_bases(cluster),
        "scripts": [
            {"name": name, "label": label, "text": _script(request, organization, name, cluster)}
            for name, label in SCRIPTS.items()
        ],
        "secure": settings.PUBLIC_URL.startswith("https://"),
        "endpoints": compiler.store_endpoints(),
        "has_agent": bool(settings.AGENT_RELEASE_URL),
    }
    return render(request, "runners/job_hooks.html", context, status=422 if form.errors else 200)


@require_GET
def script(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Download one of the scripts."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    form = ClusterForm(request.GET)
    if name not in SCRIPTS or not form.is_valid():
        raise Http404("There is no such script.")
    return HttpResponse(
        _script(request, organization, name, form.cleaned_data["cluster"]),
        content_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@require_GET
def github_hosted(request: HttpRequest, owner: str) -> HttpResponse:
    """Show GitHub-Hosted: the workflow snippet, and how to make the action reach this store."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    # The action sends everything to one address, including its `policy:` input, which only the web process answers.
    api, endpoint = f"{settings.PUBLIC_URL}/v1", compiler.endpoint_of(settings.PUBLIC_URL)
    context = {"organization": organization, "api": api, "endpoint": endpoint}
    return render(request, "runners/github_hosted.html", context)


@require_http_methods(["GET", "POST"])
def github_firewall(request: HttpRequest, owner: str) -> HttpResponse:
    """Show the file of GitHub's firewall for a repository; POST compares it with the one that is committed there."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    form = FirewallForm(request.POST if request.method == "POST" else request.GET)
    context: dict[str, object] = {"organization": organization, "form": form, "public_url": settings.PUBLIC_URL}
    if form.is_valid() and form.cleaned_data["repository"]:
        values = form.cleaned_data
        file = Files(organization, default_hosts=not values["no_default_urls"]).of(values["repository"])
        query = "?no_default_urls=1" if values["no_default_urls"] else ""
        context |= {"file": file, "path": firewall.PATH, "searched": True, "query": query}
        if file is not None and values["committed"].strip():
            try:
                context["drift"] = firewall.drift(values["committed"], file.text)
            except firewall.UnreadableFile as error:
                form.add_error("committed", str(error))
    context["repositories"] = _suggestions(organization, "")["repositories"]
    return render(request, "runners/github_firewall.html", context, status=422 if form.errors else 200)


@require_GET
def cargowall(request: HttpRequest, owner: str) -> HttpResponse:
    """Show CargoWall: the workflow snippet, what the action needs, and what it does without an answer."""
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    address = urlsplit(settings.PUBLIC_URL)
    context = {
        "organization": organization,
        "address": settings.PUBLIC_URL,
        # The action lets a job reach no other port of the store.
        "reachable": address.scheme == "https" and address.port in (None, HTTPS_PORT),
        "policy": Policy.objects.filter(organization=organization).order_by("name_key").first(),
    }
    return render(request, "runners/cargowall.html", context)


@require_GET
def last_calls(request: HttpRequest, owner: str) -> HttpResponse:
    """Show the last calls of each runner key, or of CargoWall, which has none (`of=cargowall`).

    The pages of the installation reload this fragment every few seconds.
    """
    organization = access.get_organization(request, owner, "accounts.view_apikey")
    keys = ApiKey.objects.filter(organization=organization, revoked_at__isnull=True)
    runner_keys = keys.exclude(kind=KeyKind.MANAGEMENT).order_by("kind", "slot")
    if request.GET.get("of") == "cargowall":
        seen: list[dict[str, object]] = [{"runs": list(queries.last_cargowall_jobs(organization))}]
    else:
        seen = [{"key": key, "runs": list(queries.last_calls(key.pk))} for key in runner_keys]
    template = "runners/last_calls.html#calls" if request.htmx else "runners/last_calls.html"  # type: ignore[attr-defined]
    return render(request, template, {"organization": organization, "seen": seen})


def _bases(cluster: str = "") -> dict[str, str]:
    """Return the hooks' base addresses for policies and telemetry, of the cluster if there is one."""
    path = f"{PREFIX}{cluster}" if cluster else "/v1"
    return {"api": f"{settings.RUNNER_URL}{path}", "telemetry": f"{settings.PUBLIC_URL}{path}"}


def _script(request: HttpRequest, organization: Organization, name: str, cluster: str) -> str:
    context = {
        "organization": organization,
        "cluster": cluster,
        **_bases(cluster if name == ARC_VALUES else ""),
        "host": urlsplit(settings.PUBLIC_URL).netloc,
        "hooks": settings.JOB_HOOKS_URL,
    }
    return render(request, f"runners/scripts/{name}", context).content.decode()


@require_http_methods(["GET", "POST"])
def blocklist_page(request: HttpRequest, owner: str) -> HttpResponse:
    """List the organization's entries; POST adds one."""
    if request.method != "POST":
        organization = access.get_organization(request, owner, "runners.view_blocklistentry")
        return _render_blocklist(request, organization, BlocklistForm())
    organization = access.get_organization(request, owner, "runners.change_blocklistentry")
    form = BlocklistForm(request.POST)
    if form.is_valid():
        try:
            entry = blocklist.add(organization=organization, by=access.actor(request), **form.cleaned_data)
        except blocklist.EndpointRefused as refusal:
            form.add_error("endpoint", str(refusal))
        else:
            messages.success(request, f"{entry.endpoint} is now on the blocklist.")
            return redirect("runners-settings:blocklist", organization.key)
    return _render_blocklist(request, organization, form, status=422)


@require_POST
def remove_entry(request: HttpRequest, owner: str, entry_id: int) -> HttpResponse:
    """Remove one entry."""
    organization = access.get_organization(request, owner, "runners.change_blocklistentry")
    entry = get_object_or_404(BlocklistEntry, pk=entry_id, organization=organization)
    blocklist.remove(entry=entry, by=access.actor(request))
    messages.success(request, f"{entry.endpoint} was removed from the blocklist.")
    return redirect("runners-settings:blocklist", organization.key)


def _render_blocklist(
    request: HttpRequest, organization: Organization, form: BlocklistForm, *, status: int = 200
) -> HttpResponse:
    rows = BlocklistEntry.objects.filter(organization=organization)
    page = Paginator(rows, ENTRIES_PER_PAGE).get_page(request.GET.get("page"))
    for entry in page:
        entry.can_be_served = blocklist.can_be_served(entry.kind, entry.endpoint)  # type: ignore[attr-defined]
    context = {
        "organization": organization,
        "page": page,
        "form": form,
        "store_wide": BlocklistEntry.objects.filter(organization__isnull=True),
        "is_sole": blocklist.sole_organization() == organization,
    }
    return render(request, "runners/blocklist.html", context, status=status)
