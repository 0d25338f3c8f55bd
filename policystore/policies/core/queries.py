"""Queries of the policy pages. Each page is a constant number of indexed queries, at any number of policies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact, GreaterThan

from policystore.accounts.actor import SYSTEM
from policystore.accounts.models import ApiKey, KeyKind, Membership
from policystore.audit_log.models import HistoryCheck, HistoryEvent, IntegrityProblem
from policystore.inventory.models import Organization
from policystore.policies import finding
from policystore.policies.compile import context as compile_context
from policystore.policies.models import Attachment, ManagedPolicy, Policy, PolicyCount, PolicyException, StagedVersion
from policystore.policy_language.scopes import ScopeType, summarize_counts
from policystore.web import cursors

SORT_COLUMNS = {
    "changed": "changed_at",
    "name": "name_key",
    "endpoints": "endpoint_count",
    "attached": "attachment_count",
}
DEFAULT_SORT = "-changed"
MAX_PEOPLE = 200
EXCEPTIONS_SHOWN = 20
INTEGRITY_PROBLEMS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A line of the list: the policy, in words where it is attached, and whether it is managed as code."""

    policy: Policy
    attached_to: str
    is_managed: bool = False


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """A page of the list; a cursor is empty where there is no page on that side."""

    rows: list[PolicyRow]
    next_cursor: str
    previous_cursor: str


@dataclass(frozen=True, slots=True)
class Counters:
    """How many policies the organization has, by what the list can be narrowed to."""

    total: int
    block: int
    audit: int
    unattached: int
    risky: int


SHOW_FILTERS: dict[str, Q] = {
    "": Q(),
    "block": Q(egress_policy=Policy.Mode.BLOCK),
    "audit": Q(egress_policy=Policy.Mode.AUDIT),
    # With the number in the statement: PostgreSQL, told it apart, would not see that an index has all of these.
    "unattached": Q(Exact(F("attachment_count"), RawSQL("0", ()))),
    "risky": Q(GreaterThan(F("risk_count"), RawSQL("0", ()))),
}


def list_page(
    organization: Organization,
    *,
    search: str = "",
    show: str = "",
    sort: str = DEFAULT_SORT,
    after: str = "",
    before: str = "",
    size: int | None = None,
) -> PolicyPage:
    """One page of an organization's policies, by keyset: `after` and `before` are cursors of an earlier page.

    Unknown `show` and `sort` values mean the defaults. Raises InvalidCursor.
    """
    size = size or settings.POLICIES_PER_PAGE
    column, descending = _sorting(sort)
    if show == "unattached" and column == "attachment_count":
        # All have as many; by their ids alone, PostgreSQL walks through those of all organizations.
        column = "changed_at"
    backwards = bool(before)
    order = finding.Order(column, descending != backwards, before or after)
    found = finding.first(organization, search, SHOW_FILTERS.get(show, Q()), order, size + 1)
    more, page = len(found) > size, found[:size]
    if backwards:
        page.reverse()
    has_previous, has_next = (more, True) if backwards else (bool(after), more)
    return PolicyPage(
        rows=_with_attachments(page),
        next_cursor=_cursor(page[-1], column) if page and has_next else "",
        previous_cursor=_cursor(page[0], column) if page and has_previous else "",
    )


def counters(organization: Organization) -> Counters:
    """The counters above the list, without counting: triggers keep them."""
    sums = {name: Coalesce(Sum(name), 0) for name in ("total", "block", "audit", "unattached", "risky")}
    counted: dict[str, Any] = PolicyCount.objects.filter(organization=organization).aggregate(**sums)
    return Counters(**counted)


def attachments_of(policy: Policy, *, search: str = "") -> QuerySet[Attachment]:
    """The policy's attachments to scopes whose name contains `search`, by scope."""
    rows = Attachment.objects.filter(policy=policy, organization_id=policy.organization_id).order_by("scope_key")
    return rows.filter(scope_key__icontains=search) if search else rows


def _sorting(sort: str) -> tuple[str, bool]:
    name = sort.removeprefix("-")
    if name not in SORT_COLUMNS:
        return _sorting(DEFAULT_SORT)
    return SORT_COLUMNS[name], sort.startswith("-")


def _cursor(policy: Policy, column: str) -> str:
    return cursors.written((getattr(policy, column), policy.pk))


def _with_attachments(page: Sequence[Policy]) -> list[PolicyRow]:
    counted = (
        Attachment.objects.filter(policy__in=[policy.pk for policy in page])
        .order_by()
        .values_list("policy_id", "scope_type")
        .annotate(number=Count("pk"))
    )
    by_policy: defaultdict[int, dict[ScopeType, int]] = defaultdict(dict)
    for policy_id, scope_type, number in counted:
        by_policy[policy_id][ScopeType(scope_type)] = number
    managed = set(ManagedPolicy.objects.filter(policy__in=page).values_list("policy", flat=True))
    return [PolicyRow(policy, summarize_counts(by_policy[policy.pk]), policy.pk in managed) for policy in page]


def taken_scopes(keys: Iterable[str], organization: Organization) -> dict[str, Attachment]:
    """Which of these scopes hold a policy of the organization, by scope key."""
    rows = Attachment.objects.filter(organization=organization, scope_key__in=list(keys)).select_related("policy")
    return {row.scope_key: row for row in rows}


def people(organization: Organization) -> list[str]:
    """The names that can appear in the history, for a select list: members, management keys, the store itself."""
    keys = ApiKey.objects.filter(organization=organization, kind=KeyKind.MANAGEMENT).values_list("name", flat=True)
    return sorted({*members(organization), *keys[:MAX_PEOPLE], SYSTEM.name})


def members(organization: Organization) -> list[str]:
    """The user names of members, for a list to choose from."""
    rows = Membership.objects.filter(organization=organization).order_by("user__username")
    return list(rows.values_list("user__username", flat=True)[:MAX_PEOPLE])


def history_check(organization: Organization, ledger: str) -> HistoryCheck | None:
    """How the organization's chain of this ledger was when the worker last looked at it; None where it has not yet."""
    return HistoryCheck.objects.filter(ledger=ledger, owner=organization.key).first()


def integrity_problems(organization: Organization, policy: Policy | None = None) -> list[str]:
    """Problems found by the worker that the history does not explain, in the organization or in one policy."""
    rows = IntegrityProblem.objects.filter(owner=organization.key).order_by("pk")
    if policy is not None:
        rows = rows.filter(subject_type=HistoryEvent.SubjectType.POLICY, subject_id=policy.pk)
    every = rows.values_list("problems", flat=True)[:INTEGRITY_PROBLEMS_SHOWN]
    return [sentence for sentences in every for sentence in sentences][:INTEGRITY_PROBLEMS_SHOWN]


def exceptions_of(policy: Policy) -> list[PolicyException]:
    """Those that hold, the one that ends first first, then the latest that have ended; each says as `refused` whether
    the organization never allows it."""
    rows = PolicyException.objects.filter(policy=policy)
    active = list(PolicyException.objects.active().filter(policy=policy).order_by("expires_at", "pk"))
    ended = rows.exclude(pk__in=[found.pk for found in active]).order_by("-pk")[:EXCEPTIONS_SHOWN]
    never_allow = compile_context.never_allow_of(policy.organization)
    for found in active:
        found.refused = never_allow.refusing(found.endpoint) is not None
    return [*active, *ended]


def staged_of(policy: Policy) -> StagedVersion | None:
    """The version that is staged beside the live one, if any."""
    return StagedVersion.objects.filter(pk=policy.pk).prefetch_related("canaries").first()
