"""GitHub's own egress firewall: the file of a repository. A technical preview; its format may change.

Its documentation of September 2026 names hosts, and neither ports nor wildcards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from policystore.enforcers.fidelity import Difference, Effect, Form, verdict_of
from policystore.enforcers.policy import EffectivePolicy

PATH = ".github/egress-firewall.yaml"
DEFAULT_HOSTS = ("github.com", "codeload.github.com")

_ANY_PORT = "The file lists hosts without ports."
_DEFAULT = "It is on GitHub's default list. The option no-default-urls drops that list."
_NO_WILDCARDS = "The file cannot list wildcards, so they are left out. List the hosts by name."


def compiled(policy: EffectivePolicy, *, default_hosts: bool = True) -> Form:
    """The file of a repository in which this policy applies to every job."""
    hosts = list(policy.hosts)
    reachable = {*hosts, *(DEFAULT_HOSTS if default_hosts else ())}
    return Form(
        _text(policy.mode, hosts, default_hosts),
        "yaml",
        [*_differences(policy, default_hosts)],
        [*_limits(policy, default_hosts)],
        lambda host, port: verdict_of(host in reachable),
    )


def _text(mode: str, hosts: Sequence[str], default_hosts: bool) -> str:
    lines = [f"mode: {'log' if mode == 'audit' else 'enforce'}"]
    lines += [] if default_hosts else ["no-default-urls: true"]
    lines += ["allow:", *(f"  - {host}" for host in hosts)] if hosts else ["allow: []"]
    return "\n".join([*lines, ""])


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """The one file of a repository, and what it costs to have one for all its workflows.

    `widening` has, for each workflow, the hosts that only the policies of other workflows list. `unprotected` are
    workflows without a policy, whose jobs the file applies to, too. `left_out` are the wildcards of the policies, and
    `audited` the workflows whose policies only audit.
    """

    text: str
    widening: Mapping[str, Sequence[str]]
    unprotected: Sequence[str]
    left_out: Sequence[str]
    audited: Sequence[str]


def for_repository(
    policies: Mapping[str, EffectivePolicy], *, unprotected: Sequence[str] = (), default_hosts: bool = True
) -> RepositoryFile:
    """Merge the policies of a repository's workflows, by the workflow's name.

    The file enforces only if every policy blocks.
    """
    hosts = sorted({host for policy in policies.values() for host in policy.hosts})
    audited = [name for name, policy in policies.items() if policy.mode == "audit"]
    return RepositoryFile(
        text=_text("audit" if audited else "block", hosts, default_hosts),
        widening={
            name: wider for name, policy in policies.items() if (wider := [h for h in hosts if h not in policy.hosts])
        },
        unprotected=unprotected,
        left_out=sorted({wildcard.host for policy in policies.values() for wildcard in policy.wildcards}),
        audited=audited,
    )


class UnreadableFile(ValueError):
    """A committed file is no firewall file; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How a committed file differs from the compiled one: hosts that it adds or lacks, and settings that differ."""

    added: Sequence[str]
    missing: Sequence[str]
    settings: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.missing or self.settings)


def drift(committed: str, expected: str) -> Drift:
    """Compare two files by what they mean. Raises UnreadableFile."""
    one, other = _parsed(committed), _parsed(expected)
    listed, wanted = one.pop("allow"), other.pop("allow")
    settings = [
        f"{name} is {_shown(one.get(name))} instead of {_shown(other.get(name))}"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]
    return Drift(sorted(listed - wanted), sorted(wanted - listed), settings)


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnreadableFile("This is not valid YAML.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UnreadableFile("A firewall file has the keys mode and allow.")
    allow = found.get("allow") or []
    if not isinstance(allow, list) or not all(isinstance(host, str) for host in allow):
        raise UnreadableFile("allow must be a list of hosts.")
    return {**found, "allow": {host.lower() for host in allow}}


def _shown(value: object) -> str:
    return "not set" if value is None else str(value).lower()[:40]


def _differences(policy: EffectivePolicy, default_hosts: bool) -> Iterator[Difference]:
    for host in policy.hosts:
        yield Difference(Effect.OPENS, (host,), (), _ANY_PORT)
    for host in DEFAULT_HOSTS if default_hosts else ():
        if host not in policy.hosts:
            yield Difference(Effect.OPENS, (host,), (), _DEFAULT)
    for wildcard in policy.wildcards:
        yield Difference(Effect.BLOCKS, (wildcard.host,), wildcard.ports, _NO_WILDCARDS)


def _limits(policy: EffectivePolicy, default_hosts: bool) -> Iterator[str]:
    yield "One file applies to every job of the repository."
    yield "It needs a GitHub-hosted Linux runner: ubuntu-24.04-firewall, or a larger runner with that image."
    if default_hosts:
        yield "GitHub's default list also has two groups of hosts, which GitHub fills in itself."
    if policy.mode == "audit":
        yield "Log mode also terminates TLS, so it can break a job."
    if policy.disable_sudo or policy.disable_sudo_and_containers:
        yield "The firewall runs outside the virtual machine. It cannot turn sudo off, but sudo cannot disable it."
    if policy.lockdown:
        yield "Lockdown mode is a feature of Harden-Runner."
