"""The scopes that a policy can be attached to, as the attach page offers and searches them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.db.models import QuerySet

from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from policystore.policies.core import queries
from policystore.policies.models import Attachment
from policystore.policy_language.scopes import Scope, ScopeType, parse_scope

TARGETS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Target:
    """A scope that can be chosen, and the policy that it holds now (None and empty where it holds none)."""

    scope: Scope
    policy_id: int | None
    policy_name: str


def targets(organization: Organization, scope_type: str, search: str = "") -> list[Target]:
    """At most TARGETS_SHOWN known scopes of this type whose name contains `search`; none for an unknown type."""
    find = _FINDERS.get(scope_type)
    if find is None:
        return []
    scopes = list(find(organization, search.strip()))
    holders = queries.holders(organization, [scope.key for scope in scopes])
    return [_target(scope, holders) for scope in scopes]


def clusters_without_runner(organization: Organization, scopes: Iterable[Scope]) -> set[str]:
    """The keys of those scopes that are clusters which no runner has named, so that the name may be mistyped."""
    clusters = {scope.cluster: scope.key for scope in scopes if scope.type == ScopeType.CLUSTER}
    if not clusters:
        return set()
    known = Cluster.objects.filter(organization=organization, named_by_runner=True, name__in=list(clusters))
    named = set(known.values_list("name", flat=True))
    return {key for name, key in clusters.items() if name not in named}


def written_scope(organization: Organization, scope_type: str, name: str) -> Scope:
    """The scope of this type that a person entered, such as `hello-world/ci.yml`. Raises ValueError."""
    return parse_scope(scope_type, organization.login, name)


def _target(scope: Scope, holders: dict[str, Attachment]) -> Target:
    holder = holders.get(scope.key)
    if holder is None:
        return Target(scope, None, "")
    return Target(scope, holder.policy_id, holder.policy.name)


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
