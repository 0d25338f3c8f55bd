"""GitHub's own egress firewall: the file of a repository. A technical preview; its format may change.

Its documentation of September 2026 names hosts, and neither ports nor wildcards of one's own.
"""

from __future__ import annotations

from collections.abc import Iterator

from policystore.enforcers.fidelity import Difference, Effect, Form, verdict_of
from policystore.enforcers.policy import EffectivePolicy

PATH = ".github/egress-firewall.yaml"
DEFAULT_HOSTS = ("github.com", "codeload.github.com")

_ANY_PORT = "The file lists hosts without ports."
_DEFAULT = "It is on GitHub's default list. The option no-default-urls drops that list."
_NO_WILDCARDS = "The file has no wildcards of one's own, so it is left out. List the hosts by name."


def compiled(policy: EffectivePolicy, *, default_hosts: bool = True) -> Form:
    """The file of a repository in which this policy applies to every job."""
    hosts = list(policy.hosts)
    lines = [f"mode: {'log' if policy.mode == 'audit' else 'enforce'}"]
    lines += [] if default_hosts else ["no-default-urls: true"]
    lines += ["allow:", *(f"  - {host}" for host in hosts)] if hosts else ["allow: []"]
    reachable = {*hosts, *(DEFAULT_HOSTS if default_hosts else ())}
    return Form(
        "\n".join([*lines, ""]),
        "yaml",
        [*_differences(policy, default_hosts)],
        [*_limits(policy, default_hosts)],
        lambda host, port: verdict_of(host in reachable),
    )


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
    yield "It applies on GitHub-hosted Linux runners only, with runs-on: ubuntu-24.04-firewall or a larger runner."
    if default_hosts:
        yield "GitHub's default list also has two groups of hosts that GitHub expands itself and does not publish."
    if policy.mode == "audit":
        yield "The log mode ends TLS connections, too, so it can break a job."
    if policy.disable_sudo or policy.disable_sudo_and_containers:
        yield "The firewall runs outside the virtual machine; it can be neither disabled with sudo nor turn sudo off."
    if policy.lockdown:
        yield "Lockdown mode is a feature of Harden-Runner."
