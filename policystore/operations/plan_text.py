"""A plan of policy as code in lines for people, as `plan` and `apply` print it."""

from __future__ import annotations

from collections.abc import Iterator

from policystore.policies.as_code.plan import HostChange, Plan, PolicyChange, SetChange
from policystore.policy_language.bundle import BundledStaged

_SIGNS = {"create": "+", "update": "~", "delete": "-"}


def lines(plan: Plan) -> Iterator[str]:
    """The changes one after the other, then their number."""
    for host_change in plan.host_changes:
        yield _host_change(host_change)
    if plan.host_changes:
        yield ""
    for set_change in plan.set_changes:
        yield from _set_change(set_change)
        yield ""
    for change in plan.changes:
        yield from _change(change)
        yield ""
    for name, one in plan.expired:
        yield f"Expired, ignored: exception of {name}, {one}"
    if plan.unmanaged:
        yield f"Not managed as code, left unchanged: {', '.join(plan.unmanaged)}"
    yield _summary(plan)


def _change(change: PolicyChange) -> Iterator[str]:
    yield f"{_SIGNS[change.verb]} {change.verb} policy {change.name}"
    if change.before and change.after and change.before.name != change.after.name:
        yield f"    name: {change.before.name} → {change.after.name}"
    if change.after and change.after.description != (change.before.description if change.before else ""):
        yield f"    description: {change.after.description or '(none)'}"
    for scope in change.scopes_added:
        replaced = change.replaced.get(scope.key)
        yield f"    + {scope.key}" + (f" (replaces {replaced})" if replaced else "")
    for scope in change.scopes_removed:
        yield f"    - {scope.key}"
    for line in change.diff:
        yield f"      {line}"
    for one in change.exceptions_removed:
        yield f"    - exception {one}"
    for one in change.exceptions_added:
        yield f"    + exception {one}"
    if change.staged:
        yield from _staged(*change.staged, diff=change.staged_diff)


def _staged(before: BundledStaged, after: BundledStaged, *, diff: list[str]) -> Iterator[str]:
    if after.is_nothing:
        yield "    - staged version"
        return
    yield f"    {'~' if not before.is_nothing else '+'} staged version"
    for line in diff:
        yield f"      {line}"
    for scope in sorted(set(after.canaries) - set(before.canaries)):
        yield f"    + canary {scope.key}"
    for scope in sorted(set(before.canaries) - set(after.canaries)):
        yield f"    - canary {scope.key}"


def _host_change(change: HostChange) -> str:
    reason = f" ({change.after.reason})" if change.after else ""
    return f"{_SIGNS[change.verb]} {change.verb} never-allow host {change.host}{reason}"


def _set_change(change: SetChange) -> Iterator[str]:
    verb = "update" if change.before else "create"
    yield f"{_SIGNS[verb]} {verb} endpoint set {change.after.name}"
    if change.after.description != (change.before.description if change.before else ""):
        yield f"    description: {change.after.description or '(none)'}"
    for line in change.diff:
        yield f"      {line}"


def _summary(plan: Plan) -> str:
    counts = {verb: plan.verbs.count(verb) for verb in _SIGNS}
    if plan.is_empty:
        return "Nothing to change."
    summary = ", ".join(f"{number} to {verb}" for verb, number in counts.items() if number)
    return f"{summary}. Apply exactly this with --plan {plan.digest}"
