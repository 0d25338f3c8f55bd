"""Scopes: what a policy can be attached to, each written as one text, and which of them wins for a job."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode


class ScopeType(StrEnum):
    """The four kinds of scope, most specific first."""

    WORKFLOW = "workflow"
    REPOSITORY = "repository"
    ORGANIZATION = "organization"
    CLUSTER = "cluster"

    @property
    def label(self) -> str:
        """The word that pages show."""
        return self.value.capitalize()


PRECEDENCE = tuple(ScopeType)

_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_WORKFLOW_FILE = re.compile(r"[^/\x00-\x1f\x7f]{1,250}\.ya?ml")
_DYNAMIC_WORKFLOW = re.compile(r"[^/\x00-\x1f\x7f]{1,100}/[^/\x00-\x1f\x7f]{1,100}/dynamic/[^\x00-\x1f\x7f]{1,300}")
_WORKFLOW_FOLDER = ".github/workflows/"
# Nothing can be attached to a key with an empty name, so it stands for "the runner did not say".
_NOWHERE = ""


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """One workflow, repository, organization or cluster; fields that the type does not need stay empty.

    Owner and repository names compare without case, workflow file and cluster names with case.
    """

    type: ScopeType
    owner: str
    repository: str = ""
    workflow: str = ""
    cluster: str = ""

    @classmethod
    def for_workflow(cls, owner: str, repository: str, workflow: str) -> Scope:
        """The scope of one workflow file; a pasted `.github/workflows/ci.yml` means `ci.yml`. Raises ValueError."""
        name = _workflow(workflow)
        return cls(ScopeType.WORKFLOW, _owner(owner), _repository(repository), workflow=name)

    @classmethod
    def for_repository(cls, owner: str, repository: str) -> Scope:
        """The scope of all workflows of a repository. Raises ValueError."""
        return cls(ScopeType.REPOSITORY, _owner(owner), _repository(repository))

    @classmethod
    def for_organization(cls, owner: str) -> Scope:
        """The scope of all repositories of an organization. Raises ValueError."""
        return cls(ScopeType.ORGANIZATION, _owner(owner))

    @classmethod
    def for_cluster(cls, owner: str, cluster: str) -> Scope:
        """The scope of all jobs on an ARC cluster. Raises ValueError."""
        name = cluster_name(cluster)
        return cls(ScopeType.CLUSTER, _owner(owner), cluster=name)

    @classmethod
    def from_key(cls, key: str) -> Scope:
        """The scope that `key` names, as `.key` wrote it. Raises ValueError."""
        type_name, colon, rest = key.partition(":")
        read = _READERS.get(type_name)
        if not colon or read is None:
            raise ValueError(
                f"“{_shown(key)}” is not a scope; it starts with workflow:, repository:, organization: or cluster:."
            )
        return read(rest)

    @property
    def key(self) -> str:
        """The one text that names this scope, such as `workflow:octo-org/hello-world/ci.yml`."""
        return f"{self.type}:{'/'.join(part for part in self._parts if part)}"

    @property
    def label(self) -> str:
        """What pages show: `octo-org/hello-world/ci.yml`, `octo-org/hello-world`, `octo-org` or `dev-k8s`."""
        if self.type == ScopeType.CLUSTER:
            return self.cluster
        return "/".join(part for part in self._parts if part)

    @property
    def query(self) -> str:
        """The names of the scope as a query string, such as `repository=hello-world&workflow=ci.yml`."""
        named = {"repository": self.repository, "workflow": self.workflow, "cluster": self.cluster}
        return urlencode({name: value for name, value in named.items() if value})

    @property
    def wider_keys(self) -> tuple[str, ...]:
        """The keys of the repository and the organization that this scope is part of; none for other types."""
        if not self.repository:
            return ()
        organization = Scope.for_organization(self.owner).key
        if self.type == ScopeType.REPOSITORY:
            return (organization,)
        return (Scope.for_repository(self.owner, self.repository).key, organization)

    @property
    def _parts(self) -> tuple[str, str, str, str]:
        return self.owner, self.repository, self.workflow, self.cluster


def _owner(owner: str) -> str:
    name = owner.strip()
    if not _OWNER.fullmatch(name):
        raise ValueError(f"“{_shown(owner)}” is not the name of an organization; use its login on GitHub.")
    return name.lower()


def _repository(repository: str) -> str:
    name = repository.strip()
    if not name:
        raise ValueError("Write the name of a repository, such as hello-world.")
    if not _REPOSITORY.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"“{_shown(repository)}” is not the name of a repository; use letters, digits, dots, - and _.")
    return name.lower()


def _workflow(workflow: str) -> str:
    name = workflow.strip()
    if _WORKFLOW_FOLDER in name:
        name = name.rpartition(_WORKFLOW_FOLDER)[2]
    if not (_WORKFLOW_FILE.fullmatch(name) or _DYNAMIC_WORKFLOW.fullmatch(name)):
        raise ValueError(f"“{_shown(workflow)}” is not the name of a workflow file; write it like ci.yml.")
    return name


def is_cluster_name(name: str) -> bool:
    """Return True if `name` can name a cluster as it is, without spaces around it."""
    return _CLUSTER.fullmatch(name) is not None


def cluster_name(cluster: str) -> str:
    """The name of a cluster without spaces around it. Raises ValueError."""
    name = cluster.strip()
    if not name:
        raise ValueError("Write the name of a cluster, such as arc-linux.")
    if not _CLUSTER.fullmatch(name):
        raise ValueError(
            f"“{_shown(cluster)}” is not a valid cluster name. Use letters, digits, dots, hyphens and underscores, for "
            "example prod-k8s."
        )
    return name


def _shown(text: str) -> str:
    shown = "".join(character if character.isprintable() else "�" for character in text)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


def _read_workflow(rest: str) -> Scope:
    owner, repository, workflow = (*rest.split("/", 2), "", "")[:3]
    return Scope.for_workflow(owner, repository, workflow)


def _read_repository(rest: str) -> Scope:
    owner, _, repository = rest.partition("/")
    return Scope.for_repository(owner, repository)


def _read_cluster(rest: str) -> Scope:
    owner, _, cluster = rest.partition("/")
    return Scope.for_cluster(owner, cluster)


_READERS = {
    ScopeType.WORKFLOW.value: _read_workflow,
    ScopeType.REPOSITORY.value: _read_repository,
    ScopeType.ORGANIZATION.value: Scope.for_organization,
    ScopeType.CLUSTER.value: _read_cluster,
}


def overlap(one: Scope, other: Scope) -> bool:
    """Whether a job can be in both scopes: one holds the other, or one is a cluster, on which jobs of all kinds run."""
    if one.owner != other.owner:
        return False
    if ScopeType.CLUSTER in (one.type, other.type):
        return one.type != other.type or one == other
    narrow, wide = sorted((one, other), key=lambda scope: PRECEDENCE.index(scope.type))
    return wide.repository in ("", narrow.repository) and wide.workflow in ("", narrow.workflow)


def candidate_keys(owner: str, repository: str, workflow: str, cluster: str) -> tuple[str, str, str, str]:
    """The keys that may hold the policy of a job, most specific first, from whatever a runner sent.

    Never raises; what cannot name a scope becomes the empty key, which nothing is attached to.
    """
    # Made by hand and not by `Scope`, whose four objects would take a tenth of what a fetch takes in all.
    owner = _or_nothing(_owner, owner)
    if not owner:
        return _NOWHERE, _NOWHERE, _NOWHERE, _NOWHERE
    repository = _or_nothing(_repository, repository)
    workflow = _or_nothing(_workflow, workflow)
    cluster = _or_nothing(cluster_name, cluster)
    return (
        f"workflow:{owner}/{repository}/{workflow}" if repository and workflow else _NOWHERE,
        f"repository:{owner}/{repository}" if repository else _NOWHERE,
        f"organization:{owner}",
        f"cluster:{owner}/{cluster}" if cluster else _NOWHERE,
    )


def _or_nothing(check: Callable[[str], str], name: str) -> str:
    if not name:
        return ""
    try:
        return check(name)
    except ValueError:
        return ""


_NOUNS = {
    ScopeType.REPOSITORY: ("repository", "repositories"),
    ScopeType.WORKFLOW: ("workflow", "workflows"),
    ScopeType.CLUSTER: ("cluster", "clusters"),
}
_SUMMARY_ORDER = (ScopeType.ORGANIZATION, ScopeType.REPOSITORY, ScopeType.WORKFLOW, ScopeType.CLUSTER)


def summarize_counts(counts: Mapping[ScopeType, int]) -> str:
    """Where a policy is attached, in words, by how many scopes of each type: `Not attached`,
    `Organization, 2 repositories`."""
    return ", ".join(_counted(kind, counts[kind]) for kind in _SUMMARY_ORDER if counts.get(kind)) or "Not attached"


def _counted(kind: ScopeType, number: int) -> str:
    if kind == ScopeType.ORGANIZATION:
        return kind.label
    singular, plural = _NOUNS[kind]
    return f"{number} {singular if number == 1 else plural}"


@dataclass(frozen=True, slots=True)
class Transition:
    """A scope that widened or narrowed: `octo-org/hello-world` from `specific workflows` to `entire repo`."""

    subject: str
    before: str
    after: str


def transitions(removed: Collection[Scope], added: Collection[Scope]) -> list[Transition]:
    """The widenings and narrowings among removed and added scopes, by repository first, then by organization."""
    return [*_repository_transitions(removed, added), *_organization_transitions(removed, added)]


_SPECIFIC_WORKFLOWS, _ENTIRE_REPO = "specific workflows", "entire repo"
_SPECIFIC_REPOSITORIES, _ENTIRE_ORGANIZATION = "specific repositories", "entire organization"


def _repository_transitions(removed: Collection[Scope], added: Collection[Scope]) -> list[Transition]:
    before, after = _types_by_repository(removed), _types_by_repository(added)
    found = []
    for subject in sorted(before.keys() & after.keys()):
        if before[subject] == {ScopeType.WORKFLOW} and after[subject] == {ScopeType.REPOSITORY}:
            found.append(Transition(subject, _SPECIFIC_WORKFLOWS, _ENTIRE_REPO))
        if before[subject] == {ScopeType.REPOSITORY} and after[subject] == {ScopeType.WORKFLOW}:
            found.append(Transition(subject, _ENTIRE_REPO, _SPECIFIC_WORKFLOWS))
    return found


def _types_by_repository(scopes: Collection[Scope]) -> dict[str, set[ScopeType]]:
    types: defaultdict[str, set[ScopeType]] = defaultdict(set)
    for scope in scopes:
        if scope.repository:
            types[f"{scope.owner}/{scope.repository}"].add(scope.type)
    return types


def _organization_transitions(removed: Collection[Scope], added: Collection[Scope]) -> list[Transition]:
    entire_before, entire_after = _organizations(removed), _organizations(added)
    parts_before = {scope.owner for scope in removed if scope.repository}
    parts_after = {scope.owner for scope in added if scope.repository}
    widened = [
        Transition(owner, _SPECIFIC_REPOSITORIES, _ENTIRE_ORGANIZATION) for owner in sorted(parts_before & entire_after)
    ]
    narrowed = [
        Transition(owner, _ENTIRE_ORGANIZATION, _SPECIFIC_REPOSITORIES) for owner in sorted(entire_before & parts_after)
    ]
    return widened + narrowed


def _organizations(scopes: Collection[Scope]) -> set[str]:
    return {scope.owner for scope in scopes if scope.type == ScopeType.ORGANIZATION}
