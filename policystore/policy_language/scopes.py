"""Scopes: what a policy can be attached to, each written as one text, and which of them wins for a job."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote, urlencode


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
# Workflows that GitHub itself provides, such as CodeQL's default setup, have no file.
_DYNAMIC = "dynamic/"
_DYNAMIC_TAIL = re.compile(r"(?:^|(?<=/))(?P<workflow>dynamic/(?:[^/]+/.+|[^/]+(?<!\.yml)(?<!\.yaml)))\Z")
# A page of github.com or of any GitHub Enterprise Server.
_ADDRESS = re.compile(r"(?:https?://[^/\s?#]+|(?:www\.)?github\.com)/(?P<path>[^?#]*)(?:[?#].*)?", re.IGNORECASE)
# Nothing can be attached to a key with an empty name, so an empty name means "the runner did not say".
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
        """The scope of one workflow, entered in any of the ways that `parse_scope` knows. Raises ValueError."""
        owner, repository = _owner(owner), _repository(repository)
        named, workflow = _split(owner, workflow, is_workflow=True)
        if named and _repository(named) != repository:
            raise ValueError(f"“{_shown(workflow)}” is a workflow of {named}, not of {repository}.")
        if workflow.startswith(_DYNAMIC):
            workflow = f"{owner}/{repository}/{workflow}"
        return cls(ScopeType.WORKFLOW, owner, repository, workflow=_workflow(workflow))

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
        if not colon or type_name not in _READERS:
            raise ValueError(
                f"“{_shown(key)}” is not a scope; it starts with workflow:, repository:, organization: or cluster:."
            )
        found = _ADDRESS.fullmatch(rest) if type_name in (ScopeType.WORKFLOW, ScopeType.REPOSITORY) else None
        if found:
            return parse_scope(type_name, found["path"].partition("/")[0], rest)
        read, count = _READERS[type_name]
        names = rest.split("/", count - 1)
        return read(*names, *[""] * (count - len(names)))

    @property
    def key(self) -> str:
        """The one text that names this scope, such as `workflow:octo-org/hello-world/ci.yml`."""
        return f"{self.type}:{'/'.join(part for part in self._parts if part)}"

    @property
    def label(self) -> str:
        """The name that pages show: `octo-org/hello-world/ci.yml`, `octo-org/hello-world`, `octo-org` or `dev-k8s`."""
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
    name = repository.strip().rstrip("/")
    if not name:
        raise ValueError("Enter the name of a repository, for example hello-world.")
    if not _REPOSITORY.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"“{_shown(repository)}” is not the name of a repository; use letters, digits, dots, - and _.")
    return name.lower()


def _workflow(workflow: str) -> str:
    # What clients send has no ref; GitHub's workflow_ref does.
    name = workflow.partition("@")[0].strip()
    if _WORKFLOW_FOLDER in name:
        name = name.rpartition(_WORKFLOW_FOLDER)[2]
    name = canonical_workflow(name)
    if not (_WORKFLOW_FILE.fullmatch(name) or _DYNAMIC_WORKFLOW.fullmatch(name)):
        raise ValueError(f"“{_shown(workflow)}” is not a valid workflow name. Enter a file name such as ci.yml.")
    return name


def canonical_workflow(workflow: str) -> str:
    """The name by which a workflow is known: `Octo-Org/Hello-World/dynamic/…` has its repository in lower case."""
    owner, _, rest = workflow.partition("/")
    repository, slash, path = rest.partition("/")
    return f"{owner.lower()}/{repository.lower()}/{path}" if slash and path.startswith(_DYNAMIC) else workflow


def parse_scope(scope_type: str, owner: str, text: str) -> Scope:
    """The scope of an organization that a person entered, in any of the ways in which GitHub writes it.

    Knows `hello-world/ci.yml`, `octo-org/hello-world/.github/workflows/ci.yml@refs/heads/main`, the address of the file
    or of its runs on github.com or a GitHub Enterprise Server, and
    `hello-world/dynamic/github-code-scanning/codeql`. Raises ValueError, also for another organization's names.
    """
    if scope_type == ScopeType.CLUSTER:
        return Scope.for_cluster(owner, text)
    if scope_type == ScopeType.ORGANIZATION:
        return _parse_organization(owner, text)
    if scope_type == ScopeType.REPOSITORY:
        repository, workflow = _split(owner, text)
        if workflow:
            raise ValueError(f"“{_shown(text)}” is a workflow. Choose the scope type Workflow, or enter {repository}.")
        return Scope.for_repository(owner, repository)
    if scope_type != ScopeType.WORKFLOW:
        raise ValueError("Choose a scope type first.")
    repository, workflow = _split(owner, text, is_workflow=True)
    if not (repository and workflow):
        example = f"hello-world/{workflow if workflow.startswith(_DYNAMIC) else 'ci.yml'}"
        raise ValueError(
            f"“{_shown(text)}” does not name a repository and a workflow. Enter both, for example {example}."
        )
    return Scope.for_workflow(owner, repository, workflow)


def _parse_organization(owner: str, text: str) -> Scope:
    found = _ADDRESS.fullmatch(text.strip())
    name = found["path"].strip("/") if found else text.strip()
    if name and name.lower() != owner.lower():
        raise ValueError(f"“{_shown(text)}” is not {owner}. A policy can only apply to its own organization.")
    return Scope.for_organization(owner)


def parse_job(owner: str, repository: str, workflow: str) -> tuple[str, str]:
    """The repository and workflow of a job that a person entered; both may be empty. Raises ValueError.

    The workflow may name its repository, too. What cannot be a name is returned as it is.
    """
    named, from_repository = _split(owner, repository)
    also_named, name = _split(owner, workflow, is_workflow=True)
    if named and also_named and named.lower() != also_named.lower():
        raise ValueError(f"“{_shown(workflow)}” is a workflow of {also_named}, not of {named}.")
    named, name = named or also_named, name or from_repository
    return named, f"{owner.lower()}/{named.lower()}/{name}" if name.startswith(_DYNAMIC) else name


def _split(owner: str, text: str, *, is_workflow: bool = False) -> tuple[str, str]:
    """The repository and workflow in a text, each empty if it has none; without a workflow folder or the like, the last
    part is a workflow only if `is_workflow`. Raises ValueError if the text names another organization."""
    text = text.strip()
    if found := _ADDRESS.fullmatch(text):
        place, workflow = _split_address(unquote(found["path"]))
    else:
        text = text.partition("@")[0].strip().rstrip("/")
        if _WORKFLOW_FOLDER in text:
            place, _, workflow = text.rpartition(_WORKFLOW_FOLDER)
        elif dynamic := _DYNAMIC_TAIL.search(text):
            place, workflow = text[: dynamic.start()], dynamic["workflow"]
        elif is_workflow:
            place, _, workflow = text.rpartition("/")
        else:
            place, workflow = text, ""
    return _repository_of(owner, place.strip("/")), workflow


def _split_address(path: str) -> tuple[str, str]:
    """`owner/repository` and the workflow in the path of an address, empty if it names none."""
    named, repository, rest = (*path.split("/", 2), "", "")[:3]
    place = f"{named}/{repository.removesuffix('.git')}"
    if _WORKFLOW_FOLDER in rest:
        return place, rest.rpartition(_WORKFLOW_FOLDER)[2].rstrip("/")
    runs_of = rest.removeprefix("actions/workflows/").rstrip("/") if rest.startswith("actions/workflows/") else ""
    return place, f"{_DYNAMIC}{runs_of}" if "/" in runs_of else runs_of


def _repository_of(owner: str, place: str) -> str:
    """The repository of `repository` or `owner/repository`. Raises ValueError for another owner."""
    named, slash, repository = place.rpartition("/")
    if slash and named.lower() != owner.lower():
        raise ValueError(f"“{_shown(place)}” does not belong to {owner}. Enter a repository of {owner}.")
    return repository


def is_cluster_name(name: str) -> bool:
    """Return True if `name` can name a cluster as it is, without spaces around it."""
    return _CLUSTER.fullmatch(name) is not None


def cluster_name(cluster: str) -> str:
    """The name of a cluster without spaces around it. Raises ValueError."""
    name = cluster.strip()
    if not name:
        raise ValueError("Enter the name of a cluster, for example arc-linux.")
    if not _CLUSTER.fullmatch(name):
        raise ValueError(
            f"“{_shown(cluster)}” is not a valid cluster name. Use letters, digits, dots, hyphens and underscores, for"
            " example prod-k8s."
        )
    return name


def _shown(text: str) -> str:
    shown = "".join(character if character.isprintable() else "�" for character in text)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


# What makes a scope of each type, from how many names.
_READERS: dict[str, tuple[Callable[..., Scope], int]] = {
    ScopeType.WORKFLOW.value: (Scope.for_workflow, 3),
    ScopeType.REPOSITORY.value: (Scope.for_repository, 2),
    ScopeType.ORGANIZATION.value: (Scope.for_organization, 1),
    ScopeType.CLUSTER.value: (Scope.for_cluster, 2),
}


def overlap(one: Scope, other: Scope) -> bool:
    """True if a job can be in both scopes: one contains the other, or one is a cluster, which runs any job."""
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


def places(counts: Mapping[ScopeType, int]) -> str:
    """Where a policy is attached, for the end of a sentence: `the organization, 2 repositories and 1 workflow`."""
    named = [_counted(kind, counts[kind]) for kind in _SUMMARY_ORDER if counts.get(kind)]
    named = ["the organization" if name == ScopeType.ORGANIZATION.label else name for name in named]
    return " and ".join(part for part in (", ".join(named[:-1]), *named[-1:]) if part)


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
