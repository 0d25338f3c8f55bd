"""What the pages of policies read. Each page is a constant number of indexed queries, at any number of policies."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Count, Exists, Field, OuterRef, Q, QuerySet, Sum
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce

from policystore.accounts.actors import SYSTEM
from policystore.accounts.models import ApiKey, KeyKind, Membership
from policystore.documents.scopes import Scope, ScopeType, summarize_counts
from policystore.inventory.models import Organization
from policystore.policies import keyset, rules
from policystore.policies.derived import on
from policystore.policies.models import (
    Attachment,
    HistoryCheck,
    ManagedPolicy,
    Policy,
    PolicyCount,
    PolicyException,
    StagedVersion,
)

SORT_COLUMNS = {
    "changed": "changed_at",
    "name": "name_key",
    "endpoints": "endpoint_count",
    "attached": "attachment_count",
}
DEFAULT_SORT = "-changed"
MAX_PEOPLE = 200
EXCEPTIONS_SHOWN = 20


class InvalidCursor(ValueError):
    """The page address holds a cursor that this store did not make."""


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
    "unattached": Q(attachment_count=0),
    "risky": Q(risk_count__gt=0),
}
# So many rows are looked through in the order of the page. Where that does not fill it, but finds so many, as many more
# are looked through as should; else what is looked for is rare, and found by an index.
ROWS_LOOKED_THROUGH = 150
NOT_RARE = 5


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
    backwards = bool(before)
    order = _Order(column, descending != backwards, before or after)
    found = _found(organization, search, SHOW_FILTERS.get(show, Q()), order, size + 1)
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


def searched(organization: Organization, search: str) -> QuerySet[Policy]:
    """The organization's policies whose name, description, an endpoint or a scope contains every word of `search`."""
    rows = Policy.objects.filter(organization=organization)
    for word in _words(search):
        scopes = Attachment.objects.filter(policy=OuterRef("pk"), organization=organization, scope_key__icontains=word)
        rows = rows.filter(Q(search_text__contains=word) | Q(Exists(scopes)))
    return rows


def _words(search: str) -> list[str]:
    return search.lower().split()[:8]


@dataclass(frozen=True, slots=True)
class _Order:
    """How a page is sorted, and the cursor that it begins beyond."""

    column: str
    descending: bool
    cursor: str

    def beyond(self, rows: QuerySet[Policy]) -> QuerySet[Policy]:
        """The rows after the cursor. Raises InvalidCursor."""
        if not self.cursor:
            return rows
        columns = [cast("Field[Any, Any]", Policy._meta.get_field(name)) for name in (self.column, "id")]
        values = _cursor_values(self.cursor, self.column)
        return rows.filter(keyset.beyond(dict(zip(columns, values, strict=True)), descending=self.descending))

    def first(self, rows: QuerySet[Policy], size: int) -> QuerySet[Policy]:
        """The first of these rows, by the index of this order."""
        return _ordered(rows, self.column, self.descending)[:size]

    def first_of_few(self, rows: QuerySet[Policy], size: int) -> QuerySet[Policy]:
        """The same, but sorted once found: an order that is no index's keeps databases from walking through one."""
        sign = "-" if self.descending else ""
        fenced = rows.annotate(sorted_by=Coalesce(self.column, self.column))
        return fenced.order_by(f"{sign}sorted_by", f"{sign}pk")[:size]


def _found(organization: Organization, search: str, shown: Q, order: _Order, size: int) -> list[Policy]:
    every = order.beyond(Policy.objects.filter(organization=organization))
    words = _words(search)
    if not words and not shown:
        return list(order.first(_listed(every), size))
    fitting = _listed(searched(organization, search).filter(shown))
    looked_through = ROWS_LOOKED_THROUGH
    for _ in range(2):
        near = order.first(every, looked_through).values("pk")
        found = list(order.first(fitting.filter(pk__in=near), size))
        if len(found) == size:
            return found
        if len(found) < NOT_RARE:
            break
        looked_through = 2 * looked_through * size // len(found)
    rare = order.beyond(fitting)
    for word in words:
        statement, parameters = on(connection).candidates(word)
        rare = rare.filter(pk__in=RawSQL(statement, parameters))  # noqa: S611 the word is among the parameters
    return list(order.first_of_few(rare, size))


def _listed(rows: QuerySet[Policy]) -> QuerySet[Policy]:
    return rows.defer("text", "reply", "search_text")


def scopes_of(policy: Policy) -> list[Scope]:
    """Where the policy is attached, most specific first."""
    return sorted(attachment.scope for attachment in policy.attachments.all())


def attachments_of(policy: Policy, *, search: str = "") -> QuerySet[Attachment]:
    """The policy's attachments to scopes whose name contains `search`, by scope."""
    rows = Attachment.objects.filter(policy=policy, organization_id=policy.organization_id).order_by("scope_key")
    return rows.filter(scope_key__icontains=search) if search else rows


def _sorting(sort: str) -> tuple[str, bool]:
    name = sort.removeprefix("-")
    if name not in SORT_COLUMNS:
        return _sorting(DEFAULT_SORT)
    return SORT_COLUMNS[name], sort.startswith("-")


def _ordered(rows: QuerySet[Policy], column: str, descending: bool) -> QuerySet[Policy]:
    sign = "-" if descending else ""
    return rows.order_by(f"{sign}{column}", f"{sign}pk")


def _cursor(policy: Policy, column: str) -> str:
    value = getattr(policy, column)
    written = json.dumps([value if isinstance(value, int | str) else value.isoformat(), policy.pk])
    return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")


def _cursor_values(cursor: str, column: str) -> tuple[Any, int]:
    try:
        value, pk = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(pk, int) or abs(pk) > 2**62:
            raise InvalidCursor(cursor)
        field = Policy._meta.get_field(column)
        return cast("Field[Any, Any]", field).to_python(value), pk
    except (ValueError, TypeError, OverflowError, ValidationError) as error:
        raise InvalidCursor("This page's address is broken; go back to the first page.") from error


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
    """Who may stand in the history, for a list to choose from: members, management keys, the store itself."""
    keys = ApiKey.objects.filter(organization=organization, kind=KeyKind.MANAGEMENT).values_list("name", flat=True)
    return sorted({*members(organization), *keys[:MAX_PEOPLE], SYSTEM.name})


def members(organization: Organization) -> list[str]:
    """The user names of members, for a list to choose from."""
    rows = Membership.objects.filter(organization=organization).order_by("user__username")
    return list(rows.values_list("user__username", flat=True)[:MAX_PEOPLE])


def history_check(organization: Organization, ledger: str) -> HistoryCheck | None:
    """How the organization's chain of this ledger was when the worker last looked at it; None where it has not yet."""
    return HistoryCheck.objects.filter(ledger=ledger, owner=organization.key).first()


def exceptions_of(policy: Policy) -> list[PolicyException]:
    """Those that hold, the one that ends first first, then the latest that have ended; each says as `refused` whether
    the organization never allows it."""
    rows = PolicyException.objects.filter(policy=policy)
    active = list(PolicyException.objects.active().filter(policy=policy).order_by("expires_at", "pk"))
    ended = rows.exclude(pk__in=[found.pk for found in active]).order_by("-pk")[:EXCEPTIONS_SHOWN]
    never_allow = rules.never_allow_of(policy.organization)
    for found in active:
        found.refused = never_allow.refusing(found.endpoint) is not None
    return [*active, *ended]


def staged_of(policy: Policy) -> StagedVersion | None:
    """The version that is staged beside the live one, if any."""
    return StagedVersion.objects.filter(pk=policy.pk).prefetch_related("canaries").first()
