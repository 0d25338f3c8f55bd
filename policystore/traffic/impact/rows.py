"""What the pages show of an endpoint and of a scope."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, QuerySet

from policystore.policies.models import Attachment, Policy
from policystore.policy_language.endpoint_parser import unlistable
from policystore.policy_language.never_allow import NeverAllow
from policystore.policy_language.replay import DETAILED, Seen
from policystore.policy_language.scopes import PRECEDENCE, Scope, ScopeType
from policystore.traffic.impact.precedence import Ladder
from policystore.traffic.impact.window import Window, hour_at

NAMED = 20


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """An endpoint with the workflows that called it; `refusal` says why a policy cannot list it, where it cannot."""

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


def endpoints(found: Sequence[Seen], never_allow: NeverAllow) -> Endpoints:
    """What is shown of a replay's endpoints in an organization that never allows some hosts."""
    return Endpoints([_row(seen, never_allow) for seen in found[:DETAILED]], max(len(found) - DETAILED, 0))


def _row(seen: Seen, never_allow: NeverAllow) -> EndpointRow:
    return EndpointRow(
        endpoint=seen.written,
        runs=seen.runs,
        workflows=[workflow_label(*workflow) for workflow in seen.workflows],
        last_at=hour_at(seen.last_hour),
        is_fresh=seen.is_fresh,
        refusal=_refusal(seen.written, never_allow),
    )


def _refusal(endpoint: str, never_allow: NeverAllow) -> str:
    if problem := unlistable(endpoint):
        return problem
    refused = never_allow.refusing(endpoint)
    return f"{refused.host} is never allowed: {refused.reason}" if refused else ""


def workflow_label(repository: str, workflow: str) -> str:
    """As pages name a workflow: `hello-world/ci.yml`, or the repository alone where the runner told no more."""
    return f"{repository}/{workflow}" if workflow else repository


@dataclass(frozen=True, slots=True)
class TypeRow:
    """The scopes of one type: how many, the runs that get their policy, and those for which there is nothing to tell.

    A scope is `quiet` when nothing was observed there, `shadowed` when all its runs get a more specific policy. Of
    either kind at most NAMED are named.
    """

    type: ScopeType
    scopes: int
    runs: int
    quiet: int
    quiet_labels: Sequence[str]
    shadowed_labels: Sequence[str]


def of_attached(policy: Policy, ladder: Ladder, window: Window) -> list[TypeRow]:
    """A line for each type of scope that the policy is attached to, most specific first."""
    attached = Attachment.objects.filter(policy=policy, organization_id=policy.organization_id).order_by("scope_key")
    counted = dict(attached.order_by().values_list("scope_type").annotate(number=Count("pk")))
    observed = {key for key, holder in ladder.holders.items() if holder == policy.pk}
    silent = attached.exclude(scope_key__in=observed)
    return [
        _type_row(ScopeType(kind), counted[kind], observed, ladder, window, _labels(silent.filter(scope_type=kind)))
        for kind in PRECEDENCE
        if kind in counted
    ]


def of_scopes(scopes: Collection[Scope], ladder: Ladder, window: Window) -> list[TypeRow]:
    """The same for scopes that the policy is not attached to yet."""
    observed = set(ladder.reaching({scope.key for scope in scopes}))
    rows = []
    for kind in PRECEDENCE:
        of_kind = [scope for scope in scopes if scope.type == kind]
        silent = sorted(scope.label for scope in of_kind if scope.key not in observed)
        if of_kind:
            rows.append(_type_row(kind, len(of_kind), observed, ladder, window, silent[:NAMED]))
    return rows


def _type_row(
    kind: ScopeType, scopes: int, observed: set[str], ladder: Ladder, window: Window, silent: Sequence[str]
) -> TypeRow:
    keys = {key for key in observed if key.startswith(f"{kind}:")}
    places = ladder.places_at(keys)
    shadowed = keys - {ladder.scope_of(place) for place in places}
    return TypeRow(
        type=kind,
        scopes=scopes,
        runs=sum(window.runs[place] for place in places),
        quiet=scopes - len(keys),
        quiet_labels=silent,
        shadowed_labels=sorted(Scope.from_key(key).label for key in shadowed)[:NAMED],
    )


def _labels(attachments: QuerySet[Attachment]) -> list[str]:
    return [attachment.scope.label for attachment in attachments[:NAMED]]
