"""A plan of policy as code in lines for people, as `plan` and `apply` print it."""

from __future__ import annotations

from collections.abc import Iterator

from policystore.policies.as_code import Plan, PolicyChange, SetChange

_SIGNS = {"create": "+", "update": "~", "delete": "-"}


def lines(plan: Plan) -> Iterator[str]:
    """The changes one after the other, then their number."""
    for set_change in plan.set_changes:
        yield from _set_change(set_change)
        yield ""
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


def _set_change(change: SetChange) -> Iterator[str]:
    verb = "update" if change.before else "create"
    yield f"{_SIGNS[verb]} {verb} endpoint set {change.after.name}"
    if change.after.description != (change.before.description if change.before else ""):
        yield f"    description: {change.after.description or '(none)'}"
    for line in change.diff:
        yield f"      {line}"


def _summary(plan: Plan) -> str:
    verbs = [
        *(change.verb for change in plan.changes),
        *("update" if change.before else "create" for change in plan.set_changes),
    ]
    counts = {verb: verbs.count(verb) for verb in _SIGNS}
    if plan.is_empty:
        return "Nothing to change."
    told = ", ".join(f"{number} to {verb}" for verb, number in counts.items() if number)
    return f"{told}. Apply exactly this with --plan {plan.digest}"
