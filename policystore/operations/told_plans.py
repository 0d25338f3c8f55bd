"""A plan of policy as code in lines for people, as `plan` and `apply` print it."""

from __future__ import annotations

from collections.abc import Iterator

from policystore.policies.as_code import Plan, PolicyChange

_SIGNS = {"create": "+", "update": "~", "delete": "-"}


def lines(plan: Plan) -> Iterator[str]:
    """The changes one after the other, then their number."""
    for change in plan.changes:
        yield from _change(change)
        yield ""
    if plan.unmanaged:
        yield f"Left alone, since they are not managed as code: {', '.join(plan.unmanaged)}"
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


def _summary(plan: Plan) -> str:
    counts = {verb: sum(change.verb == verb for change in plan.changes) for verb in _SIGNS}
    if not plan.changes:
        return "Nothing to change."
    told = ", ".join(f"{number} to {verb}" for verb, number in counts.items() if number)
    return f"{told}. Apply exactly this with --plan {plan.digest}"
