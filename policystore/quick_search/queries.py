"""Quick search: a few results of each kind that the person may see, each kind in a constant number of statements.

Names are found as parts of words, as in the lists that "Show all" leads to. Runs are found by their whole ids, which
are indexed. Hosts are found by jumping from one distinct host to the next in an index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import Count, F, Q, QuerySet, Sum, Value
from django.db.models.functions import Concat, Lower
from django.urls import reverse

from policystore.accounts import sidebar
from policystore.inventory.models import Organization, Repository, Workflow
from policystore.policies import endpoint_sets
from policystore.policies.core import queries as policy_queries
from policystore.policies.models import Policy
from policystore.policies.search import search_words
from policystore.policy_language.scopes import candidate_keys, parse_job
from policystore.runners.models import JobRun
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.models import JobEndpoint
from policystore.web.pagination import query_string

MIN_CHARACTERS = 2
ROWS_SHOWN = 5
# One more, to know whether there are more.
_ROWS_READ = ROWS_SHOWN + 1
# Distinct hosts that are looked through.
HOSTS_READ = 50_000
POLICIES_NAMED = 3
JOBS_NAMED = 2
# Policies that are read to name those that list an endpoint.
_LISTING_READ = 200

_RUN_ADDRESS = re.compile(r"/actions/runs/(\d+)")
_HOSTS = """
WITH RECURSIVE seen(host, number) AS (
  SELECT MIN(host), 1 FROM traffic_jobendpoint WHERE organization_id = %s
  UNION ALL
  SELECT (SELECT MIN(e.host) FROM traffic_jobendpoint e WHERE e.organization_id = %s AND e.host > seen.host), number + 1
  FROM seen WHERE seen.host IS NOT NULL AND number < %s
)
SELECT host FROM seen WHERE host LIKE %s ESCAPE '\\' LIMIT %s
"""
# Pages that are not in the sidebar: their label, view and permission.
_PAGES = (
    ("Which policy applies?", "which", "policies.view_policy"),
    ("Break glass", "policies:break_glass", "policies.view_policy"),
    ("Create policy", "policies:new", "policies.add_policy"),
    ("New endpoint set", "endpoint-sets:new", "policies.change_endpointset"),
    ("History", "policies:organization_history", "audit_log.view_historyevent"),
    ("History of keys, members and settings", "policies:account_history", "audit_log.view_historyevent"),
    ("Network Events", "network-events", "runners.view_jobrun"),
    ("Suppression rules", "detections:rules", "detections.view_detection"),
    ("Runner Job Hooks", "runners-settings:job-hooks", "accounts.view_apikey"),
    ("GitHub-Hosted runners", "runners-settings:github-hosted", "accounts.view_apikey"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a page of the store."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Result:
    """A row: its link, a few words about it, and links to what belongs to it, under a heading each."""

    label: str
    url: str
    detail: str = ""
    related: Sequence[tuple[str, Sequence[Link]]] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """The results of one kind. `all_url` leads to a list of all of them if there are more."""

    label: str
    results: Sequence[Result] = ()
    all_url: str = ""


def search(organization: Organization, text: str, *, may: Callable[[str], bool]) -> list[Group]:
    """The groups that have results and that the person may see; `may` says so for a permission.

    Fewer than MIN_CHARACTERS find nothing.
    """
    if len(text) < MIN_CHARACTERS:
        return []
    groups = (find(organization, text) for permission, find in _KINDS if may(permission))
    return [group for group in [*groups, _pages(organization, text, may)] if group.results]


def _applies(organization: Organization, text: str) -> Group:
    """The policy of the workflow that the text names, as REPOSITORY/FILE, OWNER/REPOSITORY/FILE or its address."""
    label = "Which policy applies"
    try:
        repository, workflow = parse_job(organization.key, "", text)
    except ValueError:
        return Group(label)
    keys = [key for key in candidate_keys(organization.key, repository, workflow, "") if key]
    if not repository or not workflow.endswith((".yml", ".yaml")):
        return Group(label)
    held = policy_queries.holders(organization, keys)
    attachment = next((held[key] for key in keys if key in held), None)
    url = reverse("which", args=[organization.key]) + query_string({"repository": repository, "workflow": workflow})
    question = f"Which policy applies to {repository}/{workflow}?"
    if attachment is None:
        return Group(label, [Result(question, url, "No policy, unless its cluster has one.")])
    policy = Link(attachment.policy.name, reverse("policies:view", args=[organization.key, attachment.policy_id]))
    return Group(label, [Result(question, url, "", [(f"By {attachment.scope.type.label.lower()}", [policy])])])


def _policies(organization: Organization, text: str) -> Group:
    """Policies whose name has the words, then those with the words in a description, an endpoint or a scope."""
    rows = Policy.objects.filter(organization=organization).only("name", "egress_policy", "attachment_count")
    named = rows.order_by("name_key")
    for word in search_words(text.lower()):
        named = named.filter(name_key__contains=word)
    policies = list(named[:_ROWS_READ])
    if len(policies) < _ROWS_READ:
        known = {policy.pk for policy in policies}
        others = policy_queries.list_page(organization, search=text, size=2 * _ROWS_READ).rows
        policies += [row.policy for row in others if row.policy.pk not in known]
    results = [
        Result(
            policy.name,
            reverse("policies:view", args=[organization.key, policy.pk]),
            f"{policy.get_egress_policy_display()}, {_attached(policy.attachment_count)}",
        )
        for policy in policies
    ]
    return _group("Policies", results, organization, "policies:list", text)


def _attached(number: int) -> str:
    return f"attached to {_counted(number, 'scope')}" if number else "not attached"


def _endpoint_sets(organization: Organization, text: str) -> Group:
    results = [
        Result(
            row.name,
            reverse("endpoint-sets:view", args=[organization.key, row.pk]),
            _counted(row.endpoint_count, "endpoint"),
        )
        for row in endpoint_sets.sets_of(organization, text)[:_ROWS_READ]
    ]
    return _group("Endpoint sets", results, organization, "endpoint-sets:list", text)


def _workflows(organization: Organization, text: str) -> Group:
    """Repositories, and workflows whose repository and file together have the words."""
    words = search_words(text.lower().removeprefix(f"{organization.key}/"))
    repositories = Repository.objects.filter(organization=organization).order_by("key")
    workflows = Workflow.objects.filter(repository__organization=organization).select_related("repository")
    workflows = workflows.alias(path=Lower(Concat("repository__key", Value("/"), "file_name")))
    for word in words:
        repositories = repositories.filter(key__contains=word)
        workflows = workflows.filter(path__contains=word)
    found = [_repository(organization, row) for row in repositories[:_ROWS_READ]]
    workflows = workflows.order_by("repository__key", "file_name")
    found += [_workflow(organization, row) for row in workflows[: _ROWS_READ - len(found)]]
    return _group("Repositories and workflows", found, organization, "coverage", " ".join(words))


def _repository(organization: Organization, row: Repository) -> Result:
    baseline = reverse("baseline:view", args=[organization.key]) + BaselineScope(row.key).query
    url = reverse("runs:list", args=[organization.key]) + query_string({"repository": row.name})
    return Result(row.name, url, "Repository", [("", [Link("Baseline", baseline)])])


def _workflow(organization: Organization, row: Workflow) -> Result:
    names = {"repository": row.repository.name, "workflow": row.file_name}
    runs = reverse("runs:list", args=[organization.key]) + query_string(names)
    which = reverse("which", args=[organization.key]) + query_string(names)
    label = f"{row.repository.name}/{row.file_name}"
    return Result(label, runs, "Workflow", [("", [Link("Which policy applies?", which)])])


def _endpoints(organization: Organization, text: str) -> Group:
    """Observed endpoints: the jobs that called them, and the policies that list them."""
    host = text.lower().partition(":")[0]
    hosts = _observed_hosts(organization, host) if len(host) >= MIN_CHARACTERS else []
    rows = JobEndpoint.objects.filter(organization=organization, host__in=hosts)
    counted = list(
        rows.order_by()
        .values_list("host", "port")
        .annotate(jobs=Count("pk"), through=Sum(F("calls") - F("blocked_calls")))
        .order_by("host", "port")[:_ROWS_READ]
    )
    listing = _listing(organization, [f"{host}:{port}" for host, port, *_ in counted[:ROWS_SHOWN]])
    results = [
        Result(
            f"{host}:{port}",
            _observations_url(organization, host, was_reached=bool(through)),
            f"Observed in {_counted(jobs, 'job')}" if through else f"Only blocked, in {_counted(jobs, 'job')}",
            [
                ("Called by", _calling(organization, rows.filter(host=host, port=port))),
                ("Listed by", listing.get(f"{host}:{port}", [])),
            ],
        )
        for host, port, jobs, through in counted
    ]
    return _group("Endpoints", results, organization, "baseline:organization", host)


def _observed_hosts(organization: Organization, part: str) -> list[str]:
    pattern = f"%{connection.ops.prep_for_like_query(part)}%"
    with connection.cursor() as cursor:
        cursor.execute(_HOSTS, [organization.pk, organization.pk, HOSTS_READ, pattern, _ROWS_READ])
        return [host for (host,) in cursor.fetchall()]


def _observations_url(organization: Organization, host: str, *, was_reached: bool) -> str:
    if was_reached:
        return reverse("baseline:organization", args=[organization.key]) + query_string({"q": host})
    return reverse("detections:list", args=[organization.key]) + query_string({"q": host, "status": "all"})


def _calling(organization: Organization, rows: QuerySet[JobEndpoint]) -> list[Link]:
    scopes = [BaselineScope.of_job(row) for row in rows.order_by("pk")[:JOBS_NAMED]]
    view = reverse("baseline:view", args=[organization.key])
    return [Link(scope.label, view + scope.query) for scope in scopes]


def _listing(organization: Organization, endpoints: Sequence[str]) -> dict[str, list[Link]]:
    """The first policies that list each endpoint themselves or by a set, in one statement for all of them."""
    lists = {
        f"lists_{number}": Q(search_text__contains=f"\n{endpoint}\n") | Q(search_text__endswith=f"\n{endpoint}")
        for number, endpoint in enumerate(endpoints)
    }
    if not lists:
        return {}
    condition = Q()
    for each in lists.values():
        condition |= each
    rows = Policy.objects.filter(condition, organization=organization).annotate(**lists).order_by("name_key")
    named: dict[str, list[Link]] = {endpoint: [] for endpoint in endpoints}
    for policy_id, name, *flags in rows.values_list("pk", "name", *lists)[:_LISTING_READ]:
        link = Link(name, reverse("policies:view", args=[organization.key, policy_id]))
        for endpoint, is_listed in zip(endpoints, flags, strict=True):
            if is_listed and len(named[endpoint]) < POLICIES_NAMED:
                named[endpoint].append(link)
    return named


def _runs(organization: Organization, text: str) -> Group:
    """Job runs by their run id or correlation id, or by the address of the run on GitHub."""
    address = _RUN_ADDRESS.search(text)
    wanted = address[1] if address else text
    rows = JobRun.objects.filter(organization=organization).order_by("-pk")
    runs = list(rows.filter(run_id=wanted)[:_ROWS_READ])
    runs += rows.filter(correlation_id=wanted)[: _ROWS_READ - len(runs)]
    results = [
        Result(
            run.workflow_label,
            reverse("runs:run", args=[organization.key, run.pk]),
            ", ".join(
                [run.job or "unknown job", run.policy_name or "no policy", f"{run.first_seen_at:%Y-%m-%d %H:%M} UTC"]
            ),
        )
        for run in runs
    ]
    return _group("Runs", results, organization, "runs:list", wanted)


def _pages(organization: Organization, text: str, may: Callable[[str], bool]) -> Group:
    words = search_words(text.lower())
    found = [
        Result(label, reverse(view, args=[organization.key]))
        for label, view, permission in _all_pages()
        if all(word in label.lower() for word in words) and may(permission)
    ]
    return Group("Pages", found[:ROWS_SHOWN])


def _all_pages() -> Iterator[tuple[str, str, str]]:
    for _, entries in sidebar.SECTIONS:
        for entry in entries:
            yield entry.label, entry.view, entry.permission
    yield from _PAGES


def _group(label: str, results: Sequence[Result], organization: Organization, view: str, text: str) -> Group:
    """A group that shows the first rows; the list at `view` shows all of them."""
    has_more = len(results) > ROWS_SHOWN
    all_url = reverse(view, args=[organization.key]) + query_string({"q": text}) if has_more else ""
    return Group(label, results[:ROWS_SHOWN], all_url)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# The permission that a group needs, and what finds its results.
_KINDS: tuple[tuple[str, Callable[[Organization, str], Group]], ...] = (
    ("policies.view_policy", _applies),
    ("policies.view_policy", _policies),
    ("policies.view_endpointset", _endpoint_sets),
    ("inventory.view_repository", _workflows),
    ("runners.view_jobrun", _endpoints),
    ("runners.view_jobrun", _runs),
)
