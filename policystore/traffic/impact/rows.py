"""The rows of the impact pages: endpoints and scopes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, QuerySet

from policystore.policies.models import Attachment, Policy
from policystore.policy_language.endpoint_parser import unlistable
from policystore.policy_language.never_allow import NeverAllow
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType
from policystore.traffic.impact.assignment import Assignment
from policystore.traffic.impact.replay import DETAILED, CalledEndpoint
from policystore.traffic.impact.window import Window, hour_at

NAMED = 20


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """An endpoint with the workflows that called it. `refusal` says why no policy can list it, or is empty."""

    endpoint: str
    runs: int
    workflows: Sequence[str]
    last_at: datetime
    is_fresh: bool
    refusal: str


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints that most runs called, and how many more there are."""

    rows: Sequence[EndpointRow]
    more: int


def endpoints(called: Sequence[CalledEndpoint], never_allow: NeverAllow) -> Endpoints:
    """The rows for a replay's endpoints, given the hosts that the organization never allows."""
    return Endpoints([_row(endpoint, never_allow) for endpoint in called[:DETAILED]], max(len(called) - DETAILED, 0))


def _row(called: CalledEndpoint, never_allow: NeverAllow) -> EndpointRow:
    return EndpointRow(
        endpoint=called.text,
        runs=called.runs,
        workflows=[workflow_label(*workflow) for workflow in called.workflows],
        last_at=hour_at(called.last_hour),
        is_fresh=called.is_fresh,
        refusal=_refusal(called.text, never_allow),
    )


def _refusal(endpoint: str, never_allow: NeverAllow) -> str:
    if problem := unlistable(endpoint):
        return problem
    refused = never_allow.refusing(endpoint)
    return f"{refused.host} is never allowed: {refused.reason}" if refused else ""


def workflow_label(repository: str, workflow: str) -> str:
    """A workflow as pages show it: `hello-world/ci.yml`, or the repository alone if the runner sent no workflow."""
    return f"{repository}/{workflow}" if workflow else repository


@dataclass(frozen=True, slots=True)
class TypeRow:
    """The scopes of one type: how many there are, and how many runs get their policy.

    A scope is `quiet` if nothing was observed there, and `shadowed` if all its runs get a more specific policy. At most
    NAMED labels of either kind are included.
    """

    type: ScopeType
    scopes: int
    runs: int
    quiet: int
    quiet_labels: Sequence[str]
    shadowed_labels: Sequence[str]


def of_attached(policy: Policy, assignment: Assignment, window: Window) -> list[TypeRow]:
    """A row for each type of scope that the policy is attached to, most specific first."""
    attached = Attachment.objects.filter(policy=policy, organization_id=policy.organization_id).order_by("scope_key")
    counted = dict(attached.order_by().values_list("scope_type").annotate(number=Count("pk")))
    observed = {key for key, holder in assignment.holders.items() if holder == policy.pk}
    silent = attached.exclude(scope_key__in=observed)
    return [
        _type_row(ScopeType(kind), counted[kind], observed, assignment, window, _labels(silent.filter(scope_type=kind)))
        for kind in PRECEDENCE
        if kind in counted
    ]


def of_scopes(scopes: Collection[Scope], assignment: Assignment, window: Window) -> list[TypeRow]:
    """A row for each type of these scopes, which the policy may not be attached to, most specific first."""
    observed = set(assignment.keys_in({scope.key for scope in scopes}))
    rows = []
    for kind in PRECEDENCE:
        of_kind = [scope for scope in scopes if scope.type == kind]
        silent = sorted(scope.label for scope in of_kind if scope.key not in observed)
        if of_kind:
            rows.append(_type_row(kind, len(of_kind), observed, assignment, window, silent[:NAMED]))
    return rows


def _type_row(
    kind: ScopeType, scopes: int, observed: set[str], assignment: Assignment, window: Window, silent: Sequence[str]
) -> TypeRow:
    of_kind = {scope for scope in observed if scope.startswith(f"{kind}:")}
    keys = assignment.keys_at(of_kind)
    shadowed = of_kind - {assignment.scope_of(key) for key in keys}
    return TypeRow(
        type=kind,
        scopes=scopes,
        runs=sum(window.runs[key] for key in keys),
        quiet=scopes - len(of_kind),
        quiet_labels=silent,
        shadowed_labels=sorted(Scope.from_key(scope).label for scope in shadowed)[:NAMED],
    )


def _labels(attachments: QuerySet[Attachment]) -> list[str]:
    return [attachment.scope.label for attachment in attachments[:NAMED]]
