"""What applying a bundle would change, thing by thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import unified_diff

from policystore.policy_language.bundle import (
    NOTHING_STAGED,
    BundledException,
    BundledHost,
    BundledPolicy,
    BundledSet,
    BundledStaged,
)
from policystore.policy_language.scopes import Scope


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One policy before and after; None where it is not there. `replaced` names the policies that lose scopes to it."""

    before: BundledPolicy | None
    after: BundledPolicy | None
    replaced: Mapping[str, str]

    @property
    def name(self) -> str:
        """The policy's name, the new one where its spelling changes."""
        known = self.after or self.before
        return known.name if known else ""

    @property
    def verb(self) -> str:
        """`create`, `update` or `delete`."""
        return "delete" if self.after is None else "update" if self.before else "create"

    @property
    def scopes_added(self) -> list[Scope]:
        """The scopes that the policy gains."""
        return sorted(_scopes(self.after) - _scopes(self.before))

    @property
    def scopes_removed(self) -> list[Scope]:
        """The scopes that the policy loses."""
        return sorted(_scopes(self.before) - _scopes(self.after))

    @property
    def diff(self) -> list[str]:
        """The lines of a unified diff of the texts, without line ends; empty where they are the same."""
        return _diff(self.before, self.after)

    @property
    def exceptions_added(self) -> list[BundledException]:
        """The exceptions that the policy gains; one whose owner, reason or end changes is another one."""
        return sorted(_exceptions(self.after) - _exceptions(self.before), key=str)

    @property
    def exceptions_removed(self) -> list[BundledException]:
        """The exceptions that end."""
        return sorted(_exceptions(self.before) - _exceptions(self.after), key=str) if self.after else []

    @property
    def staged(self) -> tuple[BundledStaged, BundledStaged] | None:
        """What is staged before and after; None where that stays."""
        known = self.before.staged if self.before else None
        before, after = known or NOTHING_STAGED, self.after.staged if self.after else None
        if after is None or before == after or (before.is_nothing and after.is_nothing):
            return None
        return before, after

    @property
    def staged_diff(self) -> list[str]:
        """The lines of a unified diff of the staged texts."""
        return _lines_of_diff(*(item.text for item in self.staged)) if self.staged else []


@dataclass(frozen=True, slots=True)
class HostChange:
    """One never-allow host before and after; None where it is not there."""

    before: BundledHost | None
    after: BundledHost | None

    @property
    def host(self) -> str:
        """The host or wildcard."""
        known = self.after or self.before
        return known.host if known else ""

    @property
    def verb(self) -> str:
        """`create`, `update` (of the reason) or `delete`."""
        return "delete" if self.after is None else "update" if self.before else "create"


@dataclass(frozen=True, slots=True)
class SetChange:
    """One endpoint set before and after; `before` is None where it is new."""

    before: BundledSet | None
    after: BundledSet

    @property
    def diff(self) -> list[str]:
        """The lines of a unified diff of the texts."""
        return _diff(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying a bundle would change; `unmanaged` are policies of the store that it does not concern.

    Endpoint sets that the bundle does not have stay as they are, and so does what it has no file of. `expired` are
    exceptions of the bundle that have run out, which is no difference.
    """

    organization: str
    changes: tuple[PolicyChange, ...]
    set_changes: tuple[SetChange, ...]
    unmanaged: tuple[str, ...]
    host_changes: tuple[HostChange, ...] = ()
    expired: tuple[tuple[str, BundledException], ...] = ()

    @property
    def verbs(self) -> list[str]:
        """What happens to each thing that changes: `create`, `update` or `delete`."""
        of_hosts = [change.verb for change in self.host_changes]
        of_policies = [change.verb for change in self.changes]
        return [*of_hosts, *of_policies, *("update" if change.before else "create" for change in self.set_changes)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not self.verbs

    @property
    def digest(self) -> str:
        """Names exactly these changes: a plan that was read can be told from one that came to be since."""
        told = [[_plain(change.before), _plain(change.after), dict(change.replaced)] for change in self.changes]
        sets = [[asdict(change.before) if change.before else None, asdict(change.after)] for change in self.set_changes]
        hosts = [
            [change.verb, change.host, change.after.reason if change.after else ""] for change in self.host_changes
        ]
        written = json.dumps([self.organization, told, sets, hosts], sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]


def _scopes(policy: BundledPolicy | None) -> set[Scope]:
    return set(policy.scopes) if policy else set()


def _exceptions(policy: BundledPolicy | None) -> set[BundledException]:
    return set(policy.exceptions or ()) if policy else set()


def _diff(before: BundledPolicy | BundledSet | None, after: BundledPolicy | BundledSet | None) -> list[str]:
    return _lines_of_diff(*(item.text if item else "" for item in (before, after)))


def _lines_of_diff(before: str, after: str) -> list[str]:
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    return [line.rstrip("\n") for line in unified_diff(old, new, "store", "code", n=2)]


def _plain(policy: BundledPolicy | None) -> object:
    if policy is None:
        return None
    staged = policy.staged
    return {
        "name": policy.name,
        "text": policy.text,
        "description": policy.description,
        "scopes": [scope.key for scope in policy.scopes],
        "exceptions": None if policy.exceptions is None else [str(one) for one in policy.exceptions],
        "staged": None if staged is None else [staged.text, [scope.key for scope in staged.canaries]],
    }
