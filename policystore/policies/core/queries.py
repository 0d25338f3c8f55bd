"""Queries of the policy pages. Each page is a constant number of indexed queries, at any number of policies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.conf import settings
from django.db.models import Count, Q, QuerySet

from policystore.accounts.models import SYSTEM, ApiKey, KeyKind, Membership
from policystore.audit_log.models import HistoryCheck, HistoryEvent, IntegrityProblem
from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from policystore.policies import compiler
from policystore.policies.models import Attachment, ManagedPolicy, Policy, PolicyException, StagedVersion
from policystore.policies.search import matching, scanned
from policystore.policy_language.scopes import Scope, ScopeType, summarize_counts
from policystore.web.pagination import Order, Page

# The column and its type, by the name of the order in page addresses.
SORT_COLUMNS: dict[str, tuple[str, type]] = {
    "changed": ("changed_at", datetime),
    "name": ("name_key", str),
    "endpoints": ("endpoint_count", int),
    "attached": ("attachment_count", int),
}
DEFAULT_SORT = "-changed"
MAX_PEOPLE = 200
EXCEPTIONS_SHOWN = 20
INTEGRITY_PROBLEMS_SHOWN = 20
SCOPES_PER_QUERY = 500
TARGETS_SHOWN = 50
LONG_TEXTS = ("text", "reply", "search_text", "open_exceptions")
SHOW_FILTERS: dict[str, Q] = {
    "": Q(),
    "block": Q(egress_policy=Policy.Mode.BLOCK),
    "audit": Q(egress_policy=Policy.Mode.AUDIT),
    "unattached": Q(attachment_count=0),
    "risky": Q(risk_count__gt=0),
}


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A row of the list: the policy, a summary of its scopes, and whether it is managed as code."""

    policy: Policy
    attached_to: str
    is_managed: bool = False


def list_page(
    organization: Organization,
    *,
    search: str = "",
    show: str = "",
    sort: str = DEFAULT_SORT,
    after: str = "",
    before: str = "",
    size: int | None = None,
) -> Page[PolicyRow]:
    """One page of an organization's policies; `after` and `before` are cursors of another page.

    Unknown values of `show` and `sort` and broken cursors mean the defaults.
    """
    column, kind, descending = _sorting(sort)
    if search or show:
        rows = scanned(organization, column).filter(matching(organization, search), SHOW_FILTERS.get(show, Q()))
        column = "sorted_by"
    else:
        rows = Policy.objects.filter(organization=organization)
    order = Order((column, "pk"), (kind, int), descending)
    rows = rows.defer("text", "reply", "search_text")
    page = order.page(rows, size=size or settings.POLICIES_PER_PAGE, after=after, before=before)
    return replace(page, rows=_with_attachments(page.rows))


def counters(organization: Organization, search: str = "") -> dict[str, int]:
    """The number of matching policies that each filter of SHOW_FILTERS shows, by its name; `total` of all.

    Without a search, one index holds every column that this reads.
    """
    counts = {name or "total": Count("organization", filter=condition) for name, condition in SHOW_FILTERS.items()}
    return Policy.objects.filter(matching(organization, search), organization=organization).aggregate(**counts)


def attachments_of(policy: Policy, *, search: str = "") -> QuerySet[Attachment]:
    """The policy's attachments to scopes whose name contains `search`, by scope."""
    rows = Attachment.objects.filter(policy=policy, organization_id=policy.organization_id).order_by("scope_key")
    return rows.filter(scope_key__icontains=search) if search else rows


def attachment_counts(policy: Policy) -> dict[ScopeType, int]:
    """How many scopes of each type the policy is attached to."""
    counted = attachments_of(policy).order_by().values_list("scope_type").annotate(number=Count("pk"))
    return {ScopeType(scope_type): number for scope_type, number in counted}


def _sorting(sort: str) -> tuple[str, type, bool]:
    """The column, its type, and whether the order is descending."""
    name = sort.removeprefix("-")
    if name not in SORT_COLUMNS:
        return _sorting(DEFAULT_SORT)
    return *SORT_COLUMNS[name], sort.startswith("-")


def _with_attachments(page: Sequence[Policy]) -> list[PolicyRow]:
    counted = (
        Attachment.objects.filter(policy__in=[policy.pk for policy in page])
        .order_by()
        .values_list("policy_id", "scope_type")
        .annotate(number=Count("pk"))
    )
    by_policy: defaultdict[int, dict[ScopeType, int]] = defaultdict(dict)
    for policy_id, scope_type, number in counted:
        by_policy[policy_id][ScopeType(scope_type)] = number
    managed = set(ManagedPolicy.objects.filter(policy__in=page).values_list("policy", flat=True))
    return [PolicyRow(policy, summarize_counts(by_policy[policy.pk]), policy.pk in managed) for policy in page]


def holders(organization: Organization, keys: Iterable[str]) -> dict[str, Attachment]:
    """The organization's attachments on these scopes, by scope key, with their policies but without long texts."""
    listed, found = list(keys), dict[str, Attachment]()
    rows = Attachment.objects.filter(organization=organization).select_related("policy").order_by()
    rows = rows.defer(*(f"policy__{name}" for name in LONG_TEXTS))
    for start in range(0, len(listed), SCOPES_PER_QUERY):
        for row in rows.filter(scope_key__in=listed[start : start + SCOPES_PER_QUERY]):
            row.organization = row.policy.organization = organization
            found[row.scope_key] = row
    return found


def people(organization: Organization) -> list[str]:
    """The names that can appear in the history, for a select list: members, management keys, the store itself."""
    keys = ApiKey.objects.filter(organization=organization, kind=KeyKind.MANAGEMENT).values_list("name", flat=True)
    return sorted({*members(organization), *keys[:MAX_PEOPLE], SYSTEM.name})


def members(organization: Organization) -> list[str]:
    """The user names of members, for a list to choose from."""
    rows = Membership.objects.filter(organization=organization).order_by("user__username")
    return list(rows.values_list("user__username", flat=True)[:MAX_PEOPLE])


def history_check(organization: Organization, ledger: str) -> HistoryCheck | None:
    """How the organization's chain of this ledger was when the worker last looked at it; None where it has not yet."""
    return HistoryCheck.objects.filter(ledger=ledger, owner=organization.key).first()


def integrity_problems(organization: Organization, policy: Policy | None = None) -> list[str]:
    """Problems found by the worker that the history does not explain, in the organization or in one policy."""
    rows = IntegrityProblem.objects.filter(owner=organization.key).order_by("pk")
    if policy is not None:
        rows = rows.filter(subject_type=HistoryEvent.SubjectType.POLICY, subject_id=policy.pk)
    every = rows.values_list("problems", flat=True)[:INTEGRITY_PROBLEMS_SHOWN]
    return [sentence for sentences in every for sentence in sentences][:INTEGRITY_PROBLEMS_SHOWN]


def exceptions_of(policy: Policy) -> list[PolicyException]:
    """The active exceptions, the first to end first, then the latest that ended. `refused` is True for an active one
    whose host is never allowed."""
    rows = PolicyException.objects.filter(policy=policy)
    active = list(PolicyException.objects.active().filter(policy=policy).order_by("expires_at", "pk"))
    ended = rows.exclude(pk__in=[found.pk for found in active]).order_by("-pk")[:EXCEPTIONS_SHOWN]
    never_allow = compiler.never_allow_of(policy.organization)
    for found in active:
        found.refused = never_allow.refusing(found.endpoint) is not None
    return [*active, *ended]


def staged_of(policy: Policy) -> StagedVersion | None:
    """The version that is staged beside the live one, if any."""
    staged = StagedVersion.objects.filter(pk=policy.pk).prefetch_related("canaries").first()
    if staged is not None:
        staged.policy = policy
    return staged


@dataclass(frozen=True, slots=True)
class Target:
    """A scope that can be or was chosen, and the policy that it holds now, if any."""

    scope: Scope
    holder: Policy | None


def targets(organization: Organization, scope_type: str, search: str = "") -> list[Target]:
    """At most TARGETS_SHOWN known scopes of this type whose name contains `search`; none for an unknown type."""
    find = _FINDERS.get(scope_type)
    if find is None:
        return []
    return with_holders(organization, list(find(organization, search.strip())))


def with_holders(organization: Organization, scopes: Sequence[Scope]) -> list[Target]:
    """The scopes with the policies that they hold now."""
    held = holders(organization, [scope.key for scope in scopes])
    return [Target(scope, held[scope.key].policy if scope.key in held else None) for scope in scopes]


def clusters_without_runner(organization: Organization, scopes: Iterable[Scope]) -> set[str]:
    """The keys of those scopes that are clusters which no runner has named, so that the name may be mistyped."""
    clusters = {scope.cluster: scope.key for scope in scopes if scope.type == ScopeType.CLUSTER}
    if not clusters:
        return set()
    known = Cluster.objects.filter(organization=organization, named_by_runner=True, name__in=list(clusters))
    named = set(known.values_list("name", flat=True))
    return {key for name, key in clusters.items() if name not in named}


def _workflows(organization: Organization, search: str) -> Iterable[Scope]:
    rows = Workflow.objects.filter(repository__organization=organization).select_related("repository")
    repository, slash, file_name = search.rpartition("/")
    if slash:
        rows = rows.filter(repository__key__contains=repository.split("/")[-1].lower())
    rows = rows.filter(file_name__icontains=file_name) if slash else _either(rows, search)
    for row in rows.order_by("repository__key", "file_name")[:TARGETS_SHOWN]:
        yield Scope.for_workflow(organization.login, row.repository.name, row.file_name)


def _either(rows: QuerySet[Workflow], search: str) -> QuerySet[Workflow]:
    return (rows.filter(file_name__icontains=search) | rows.filter(repository__key__contains=search.lower())).distinct()


def _repositories(organization: Organization, search: str) -> Iterable[Scope]:
    name = search.lower().removeprefix(f"{organization.key}/")
    rows = Repository.objects.filter(organization=organization, key__contains=name).order_by("key")
    for row in rows[:TARGETS_SHOWN]:
        yield Scope.for_repository(organization.login, row.name)


def _organizations(organization: Organization, search: str) -> Iterable[Scope]:
    # Another organization's name finds nothing: it cannot be attached to.
    if search.lower() in organization.key:
        yield Scope.for_organization(organization.login)


def _clusters(organization: Organization, search: str) -> Iterable[Scope]:
    rows = Cluster.objects.filter(organization=organization, name__icontains=search).order_by("name")
    for row in rows[:TARGETS_SHOWN]:
        yield Scope.for_cluster(organization.login, row.name)


_FINDERS: dict[str, Callable[[Organization, str], Iterable[Scope]]] = {
    ScopeType.WORKFLOW: _workflows,
    ScopeType.REPOSITORY: _repositories,
    ScopeType.ORGANIZATION: _organizations,
    ScopeType.CLUSTER: _clusters,
}
