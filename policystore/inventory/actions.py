"""Adds to what the store knows of: by hand, from a file, and from what runners ask."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from django.db import transaction

from policystore.documents.scopes import Scope
from policystore.inventory.models import Cluster, Organization, Repository, Workflow


@dataclass(frozen=True, slots=True)
class Sighting:
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
    key = Scope.for_repository(organization.login, name).repository
    return Repository.objects.get_or_create(organization=organization, key=key, defaults={"name": name.strip()})[0]


def add_workflow(*, repository: Repository, file_name: str) -> Workflow:
    """The workflow, added if it is new; file names compare with case. Raises ValueError."""
    name = Scope.for_workflow(repository.organization.login, repository.name, file_name).workflow
    return Workflow.objects.get_or_create(repository=repository, file_name=name)[0]


def add_cluster(*, organization: Organization, name: str) -> Cluster:
    """The cluster, added if it is new. Raises ValueError."""
    name = Scope.for_cluster(organization.login, name).cluster
    return Cluster.objects.get_or_create(organization=organization, name=name)[0]


def learn(*, sightings: Iterable[Sighting]) -> None:
    """Add what runners named and the store does not know yet; what cannot be a name is passed over."""
    organizations = Organization.objects.in_bulk({sighting.organization_id for sighting in sightings})
    for sighting in sorted(set(sightings), key=lambda seen: (seen.organization_id, seen.repository, seen.workflow)):
        organization = organizations.get(sighting.organization_id)
        if organization is not None:
            _learn_one(organization, sighting)


def _learn_one(organization: Organization, sighting: Sighting) -> None:
    try:
        if sighting.cluster:
            add_cluster(organization=organization, name=sighting.cluster)
        repository = add_repository(organization=organization, name=sighting.repository)
        if sighting.workflow:
            add_workflow(repository=repository, file_name=sighting.workflow)
    except ValueError:
        return


def learn_scopes(*, organization: Organization, scopes: Iterable[Scope]) -> None:
    """Add what a person named by attaching a policy to it."""
    learn(
        sightings=[Sighting(organization.pk, scope.repository, scope.workflow, scope.cluster) for scope in scopes],
    )


@dataclass(slots=True)
class ImportResult:
    """How many rows were taken, and what was wrong with the others: (line number, reason)."""

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
            result.refused.append((rows.line_num, f"This is no line of CSV: {error}."))
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
        raise ValueError(f"The line has {len(cells)} columns; write owner, repository, workflow.")
    owner, repository_name, workflow = (*cells, "", "")[:3]
    if workflow and not repository_name:
        raise ValueError("The line names a workflow and no repository.")
    with transaction.atomic():
        organization = add_organization(login=owner)
        if repository_name:
            repository = add_repository(organization=organization, name=repository_name)
            if workflow:
                add_workflow(repository=repository, file_name=workflow)
