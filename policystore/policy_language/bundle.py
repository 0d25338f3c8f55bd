"""Policy as code: an organization's policies as a folder of files that people keep in Git.

    policystore.yaml                     format and organization
    policies/NAME/policy.yaml            the policy's text, byte for byte
    policies/NAME/about.yaml             its description, and the scopes that it is attached to
    policies/NAME/exceptions.yaml        its open exceptions
    policies/NAME/staged.yaml            the text of its staged version, byte for byte; nothing is staged where empty
    policies/NAME/canaries.yaml          the scopes that get the staged version
    endpoint-sets/NAME/endpoints.yaml    the set's text, byte for byte
    endpoint-sets/NAME/about.yaml        its description
    never-allow.yaml                     the hosts that no policy may allow, and why

A folder's name is the name of the policy or set. What has no file is not kept as code: without `never-allow.yaml`, and
for a policy without `exceptions.yaml` or `staged.yaml`, the store's own stay as they are. `bundle_parser` reads the
files with the guard that policies are read with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import yaml

from policystore.policy_language.problems import Problem
from policystore.policy_language.scopes import Scope

FORMAT = "1"
MANIFEST, NEVER_ALLOW = "policystore.yaml", "never-allow.yaml"
POLICIES, SETS = "policies", "endpoint-sets"
POLICY_TEXT, SET_TEXT, ABOUT = "policy.yaml", "endpoints.yaml", "about.yaml"
EXCEPTIONS, STAGED_TEXT, CANARIES = "exceptions.yaml", "staged.yaml", "canaries.yaml"


@dataclass(frozen=True, slots=True)
class BundledException:
    """An endpoint that a policy allows until a given time, in UTC; `line` is its line in the file.

    An exception is idle if it could not be added now: the policy lists its endpoint by now, or the organization never
    allows it.
    """

    endpoint: str
    owner: str
    reason: str
    until: datetime
    line: int = field(default=1, compare=False)
    is_idle: bool = field(default=False, compare=False)

    @property
    def _until(self) -> str:
        is_whole = self.until.second == self.until.microsecond == 0
        until = self.until.replace(tzinfo=None)
        return until.isoformat(" ", "minutes" if is_whole else "auto")

    def __str__(self) -> str:
        return f"{self.endpoint} until {self._until} UTC, owner {self.owner}: {self.reason}"


@dataclass(frozen=True, slots=True)
class BundledStaged:
    """A staged version and its canary scopes, in order and each once."""

    text: str
    canaries: tuple[Scope, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """True if nothing is staged."""
        return not self.text.strip()


NOTHING_STAGED = BundledStaged("")


@dataclass(frozen=True, slots=True)
class BundledPolicy:
    """A policy and where it is attached; `scopes` are in order and each once, exceptions in order of their endpoint.

    `exceptions` and `staged` are None where they are not kept as code.
    """

    name: str
    text: str
    description: str = ""
    scopes: tuple[Scope, ...] = ()
    exceptions: tuple[BundledException, ...] | None = None
    staged: BundledStaged | None = None


@dataclass(frozen=True, slots=True)
class BundledSet:
    """An endpoint set."""

    name: str
    text: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class BundledHost:
    """A host that no policy may allow, and why; `line` is where the file has it."""

    host: str
    reason: str
    line: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything of an organization that is kept as code, sorted by name without case.

    `never_allow` is None where that is not kept as code.
    """

    organization: str
    policies: tuple[BundledPolicy, ...] = ()
    sets: tuple[BundledSet, ...] = ()
    never_allow: tuple[BundledHost, ...] | None = None


class BrokenBundle(ValueError):
    """The files are not a valid bundle; `problems` pairs each problem with the path of its file."""

    def __init__(self, problems: Iterable[tuple[str, Problem]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(describe(path, problem) for path, problem in self.problems))


def describe(path: str, problem: Problem) -> str:
    """A problem in one line, in the format of compilers: `policies/ci/about.yaml:3:5: …`."""
    return f"{path}:{problem.line}:{problem.column}: {problem.message} {problem.hint}".rstrip()


def write(bundle: Bundle) -> dict[str, str]:
    """The bundle's files: their paths, with slashes, and their texts. The same bundle always gives the same bytes."""
    manifest: dict[str, Any] = {"format": int(FORMAT), "organization": bundle.organization}
    files = {MANIFEST: _yaml(manifest)}
    for policy in bundle.policies:
        about = {"description": policy.description, "attached-to": [scope.key for scope in policy.scopes]}
        files[f"{POLICIES}/{policy.name}/{POLICY_TEXT}"] = policy.text
        files[f"{POLICIES}/{policy.name}/{ABOUT}"] = _yaml(about)
        files |= {f"{POLICIES}/{policy.name}/{name}": text for name, text in _more_of(policy).items()}
    for endpoint_set in bundle.sets:
        files[f"{SETS}/{endpoint_set.name}/{SET_TEXT}"] = endpoint_set.text
        files[f"{SETS}/{endpoint_set.name}/{ABOUT}"] = _yaml({"description": endpoint_set.description})
    if bundle.never_allow is not None:
        hosts = [{"host": entry.host, "reason": entry.reason} for entry in bundle.never_allow]
        files[NEVER_ALLOW] = _yaml({"hosts": hosts})
    return files


def _more_of(policy: BundledPolicy) -> dict[str, str]:
    files = {}
    if policy.exceptions is not None:
        entries = [
            {"endpoint": entry.endpoint, "owner": entry.owner, "reason": entry.reason, "until": entry.until.isoformat()}
            for entry in policy.exceptions
            if not entry.is_idle
        ]
        files[EXCEPTIONS] = _yaml({"exceptions": entries})
    if policy.staged is not None:
        files[STAGED_TEXT] = policy.staged.text
        if policy.staged.canaries:
            files[CANARIES] = _yaml({"scopes": [scope.key for scope in policy.staged.canaries]})
    return files


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), allow_unicode=True, sort_keys=False, width=1000)


def is_of_bundle(path: str) -> bool:
    """True for a path, with slashes, that a bundle may have; other files of the folder are left alone."""
    parts = PurePosixPath(path).parts
    if len(parts) == 1:
        return parts[0] in (MANIFEST, NEVER_ALLOW)
    names = {POLICIES: (POLICY_TEXT, ABOUT, EXCEPTIONS, STAGED_TEXT, CANARIES), SETS: (SET_TEXT, ABOUT)}
    return len(parts) == 3 and parts[2] in names.get(parts[0], ())
