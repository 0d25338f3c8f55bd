"""Adds to the inventory: by hand, from a CSV file, and from what runners ask."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, TextIO

from django.db import connection, transaction

from policystore.db import bulk_json
from policystore.inventory.models import Cluster, Organization, Repository, Workflow
from policystore.policy_language.scopes import Scope, parse_job


class Sighting(NamedTuple):
    """A repository, workflow and cluster that a runner named; empty where it named none."""

    organization_id: int
    repository: str
    workflow: str
    cluster: str


def add_organization(*, login: str) -> Organization:
    """The organization with this login, added if it is new. Raises ValueError for what cannot be a login."""
    key = Scope.for_organization(login).owner
    return Organization.objects.get_or_create(key=key, defaults={"login": login.strip()})[0]


def add_repository(*, organization: Organization, name: str) -> Repository:
    """The repository, added if it is new; names compare without case. Raises ValueError."""
    named, _ = parse_job(organization.login, name, "")
    key = Scope.for_repository(organization.login, named).repository
    return Repository.objects.get_or_create(organization=organization, key=key, defaults={"name": named.strip()})[0]


def add_workflow(*, repository: Repository, file_name: str) -> Workflow:
    """The workflow, added if it is new; file names compare with case. Raises ValueError."""
    name = Scope.for_workflow(repository.organization.login, repository.name, file_name).workflow
    return Workflow.objects.get_or_create(repository=repository, file_name=name)[0]


def add_cluster(*, organization: Organization, name: str) -> Cluster:
    """The cluster, added if it is new. Raises ValueError."""
    name = Scope.for_cluster(organization.login, name).cluster
    return Cluster.objects.get_or_create(organization=organization, name=name)[0]


SIGHTINGS_AT_ONCE = 500
# An empty repository, workflow or cluster was not named, so it is not looked up.
_UNKNOWN = """
SELECT organization_id, repository, workflow, cluster FROM {sightings} AS seen
WHERE (seen.repository <> '' AND NOT EXISTS (
    SELECT 1 FROM inventory_repository r WHERE r.organization_id = seen.organization_id AND r.key = seen.repository_key
    AND (seen.workflow = '' OR EXISTS (
        SELECT 1 FROM inventory_workflow w WHERE w.repository_id = r.id AND w.file_name = seen.workflow
    ))
)) OR (seen.cluster <> '' AND NOT EXISTS (
    SELECT 1 FROM inventory_cluster c WHERE c.organization_id = seen.organization_id AND c.name = seen.cluster
    {as_runners_do}
))
"""
_SIGHTING = {
    "organization_id": "bigint",
    "repository": "text",
    "workflow": "text",
    "cluster": "text",
    "repository_key": "text",
}


def learn(*, sightings: Iterable[Sighting], by_runner: bool = True) -> None:
    """Add what runners or people named and the store does not know yet; invalid names are skipped."""
    unknown = _unknown(set(sightings), by_runner=by_runner)
    organizations = Organization.objects.in_bulk({sighting.organization_id for sighting in unknown})
    for organization_id, group in groupby(unknown, key=attrgetter("organization_id")):
        if organization_id in organizations:
            _add_all(organizations[organization_id], list(group), by_runner=by_runner)


def _unknown(sightings: set[Sighting], *, by_runner: bool) -> list[Sighting]:
    """Those that name something new, ordered, by one statement: nearly always there are none.

    A cluster that only people have named is new when a runner names it.
    """
    if not sightings:
        return []
    rows = [(*sighting, sighting.repository.lower()) for sighting in sightings]
    with connection.cursor() as cursor:
        as_runners_do = "AND c.named_by_runner" if by_runner else ""
        statement = _UNKNOWN.format(sightings=bulk_json.source(**_SIGHTING), as_runners_do=as_runners_do)
        cursor.execute(statement, [bulk_json.parameter(rows)])
        return sorted(Sighting(*row) for row in cursor.fetchall())


def _add_all(organization: Organization, sightings: Sequence[Sighting], *, by_runner: bool) -> None:
    for start in range(0, len(sightings), SIGHTINGS_AT_ONCE):
        clusters: set[str] = set()
        repositories: dict[str, str] = {}
        workflows: set[tuple[str, str]] = set()
        for sighting in sightings[start : start + SIGHTINGS_AT_ONCE]:
            try:
                if sighting.cluster:
                    clusters.add(Scope.for_cluster(organization.login, sighting.cluster).cluster)
                key = Scope.for_repository(organization.login, sighting.repository).repository
                repositories.setdefault(key, sighting.repository.strip())
                if sighting.workflow:
                    workflow = Scope.for_workflow(organization.login, sighting.repository, sighting.workflow).workflow
                    workflows.add((key, workflow))
            except ValueError:
                continue
        _insert_clusters(organization, clusters, by_runner=by_runner)
        _insert(organization, repositories, workflows)


# Each table in one order, so that two processes never wait for each other in a circle.
def _insert_clusters(organization: Organization, names: set[str], *, by_runner: bool) -> None:
    rows = [Cluster(organization=organization, name=name, named_by_runner=by_runner) for name in sorted(names)]
    if by_runner:
        unique = ["organization", "name"]
        Cluster.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=unique, update_fields=["named_by_runner"]
        )
    else:
        Cluster.objects.bulk_create(rows, ignore_conflicts=True)


def _insert(organization: Organization, repositories: dict[str, str], workflows: set[tuple[str, str]]) -> None:
    # What another process added in the meantime stays as it is.
    Repository.objects.bulk_create(
        [Repository(organization=organization, key=key, name=name) for key, name in sorted(repositories.items())],
        ignore_conflicts=True,
    )
    ids = dict(organization.repositories.filter(key__in=list(repositories)).values_list("key", "pk"))
    Workflow.objects.bulk_create(
        [Workflow(repository_id=ids[key], file_name=name) for key, name in sorted(workflows)], ignore_conflicts=True
    )


def learn_scopes(*, organization: Organization, scopes: Iterable[Scope]) -> None:
    """Add what a person named by attaching a policy to it."""
    learn(
        sightings=[Sighting(organization.pk, scope.repository, scope.workflow, scope.cluster) for scope in scopes],
        by_runner=False,
    )


@dataclass(slots=True)
class ImportResult:
    """The number of imported rows, and why others were refused: (line number, reason)."""

    taken: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


HEADER = ["owner", "repository", "workflow"]


def import_csv(*, file: TextIO) -> ImportResult:
    """Add the rows of a CSV file of owner, repository and workflow (the last two may be empty), good ones only."""
    result = ImportResult()
    rows = csv.reader(file)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return result
        except csv.Error as error:
            result.refused.append((rows.line_num, f"This line is not valid CSV: {error}."))
            continue
        cells = [cell.strip() for cell in row]
        if not any(cells) or (rows.line_num == 1 and [cell.lower() for cell in cells] == HEADER[: len(cells)]):
            continue
        try:
            _import_row(cells)
            result.taken += 1
        except ValueError as error:
            result.refused.append((rows.line_num, str(error)))


def _import_row(cells: Sequence[str]) -> None:
    if len(cells) > len(HEADER):
        raise ValueError(f"The line has {len(cells)} columns. Use three: owner, repository, workflow.")
    owner, repository_name, workflow = (*cells, "", "")[:3]
    if workflow and not repository_name:
        raise ValueError("The line has a workflow but no repository.")
    with transaction.atomic():
        organization = add_organization(login=owner)
        if repository_name:
            repository = add_repository(organization=organization, name=repository_name)
            if workflow:
                add_workflow(repository=repository, file_name=workflow)
