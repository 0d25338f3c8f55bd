"""Finds the policies that a page of the list shows, at any number of policies: by walking a bounded part of the index
of its order, and what is rare by the index of texts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.db import connection
from django.db.models import Case, Field, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.expressions import Expression
from django.db.models.functions import Coalesce
from django.db.models.lookups import IsNull

from policystore.inventory.models import Organization
from policystore.policies import keyset
from policystore.policies.derived import dialects, grams, on
from policystore.policies.models import Attachment, Policy
from policystore.web import cursors, search_words

# So many rows are looked through in the order of the page. Where that does not fill it, but finds so many, as many more
# are looked through as should; else what is looked for is rare, and found by an index.
ROWS_LOOKED_THROUGH = 100
NOT_RARE = 5
# So many are compared with the words one by one, rather than that texts are looked up.
FEW = 2000
# How many policies have a word is counted so far, where there are several.
MANY = 10_000
# So many that have the rarest of several words are compared with the others, before all of them are.
NEAREST = 500

# Of the column that a page is sorted by, and the id.
Values = tuple[Any, int]
_TYPES = {"changed_at": datetime, "name_key": str, "endpoint_count": int, "attachment_count": int}


def searched(organization: Organization, search: str) -> QuerySet[Policy]:
    """The organization's policies whose name, description, an endpoint or a scope contains every word of `search`."""
    return _having(Policy.objects.filter(organization=organization), _words(search))


def _having(rows: QuerySet[Policy], words: list[str]) -> QuerySet[Policy]:
    for word in words:
        scopes = Attachment.objects.filter(
            policy=OuterRef("pk"), organization=OuterRef("organization"), scope_key__icontains=word
        )
        # Of EXISTS PostgreSQL may make a list of all attachments that have the word, which reads every attachment.
        scope = Subquery(scopes.values("pk")[:1])
        rows = rows.filter(Q(search_text__contains=word) | Q(IsNull(scope, False)))
    return rows


def _words(search: str) -> list[str]:
    return search_words.words(search.lower())


@dataclass(frozen=True, slots=True)
class Order:
    """How a page is sorted, and the cursor that it begins beyond."""

    column: str
    descending: bool
    cursor: str

    def beyond(self, rows: QuerySet[Policy]) -> QuerySet[Policy]:
        """The rows after the cursor. Raises InvalidCursor."""
        if not self.cursor:
            return rows
        value, pk = cursors.read(self.cursor, (_TYPES[self.column], int))
        return rows.filter(self._beyond((value, pk), descending=self.descending))

    def bound(self, rows: QuerySet[Policy], count: int) -> Values | None:
        """The values of the row that comes after the first so many of these; None where there is none."""
        return self.first(rows, count + 1).values_list(self.column, "pk")[count:].first()

    def within(self, rows: QuerySet[Policy], near: QuerySet[Policy], bound: Values | None) -> QuerySet[Policy]:
        """Those of these rows that are near, where the bound comes right after those. Raises InvalidCursor.

        Told twice: PostgreSQL looks the near rows up by their ids, and guesses badly how many are in a range; SQLite
        walks the index of this order, and would go on to its end if that range had none.
        """
        rows = self.beyond(rows).filter(pk__in=near.values("pk"))
        return rows if bound is None else rows.filter(self._beyond(bound, descending=not self.descending))

    def _beyond(self, values: Values, *, descending: bool) -> Expression:
        columns = [cast("Field[Any, Any]", Policy._meta.get_field(name)) for name in (self.column, "id")]
        return keyset.beyond(dict(zip(columns, values, strict=True)), descending=descending)

    def first(self, rows: QuerySet[Policy], size: int) -> QuerySet[Policy]:
        """The first of these rows, by the index of this order."""
        return _ordered(rows, self.column, self.descending)[:size]

    def first_of_few(self, rows: QuerySet[Policy], size: int) -> QuerySet[Policy]:
        """The same, but sorted once found: an order that is no index's keeps databases from walking through one."""
        sign = "-" if self.descending else ""
        fenced = rows.annotate(sorted_by=Coalesce(self.column, self.column))
        return fenced.order_by(f"{sign}sorted_by", f"{sign}pk")[:size]


def first(organization: Organization, search: str, shown: Q, order: Order, size: int) -> list[Policy]:
    """The first so many policies of the organization that `searched` finds and `shown` leaves. Raises InvalidCursor."""
    # What can be shown has an index in each order, however the one goes with the other.
    every = order.beyond(Policy.objects.filter(shown, organization=organization))
    if not _words(search):
        return list(order.first(_listed(every), size))
    fitting = _listed(searched(organization, search).filter(shown))
    looked_through = ROWS_LOOKED_THROUGH
    for _ in range(2):
        bound = order.bound(every, looked_through)
        near = order.first(every, looked_through)
        found = list(order.first(order.within(fitting, near, bound), size))
        if len(found) == size or bound is None:
            return found
        if len(found) < NOT_RARE:
            break
        looked_through = 2 * looked_through * size // len(found)
    return _by_index(organization, _words(search), shown, order, size)


def _by_index(organization: Organization, words: list[str], shown: Q, order: Order, size: int) -> list[Policy]:
    """The first of the shown policies that have all words: found by the index of `shown` where that leaves few, else by
    the index of texts.

    By the latter, `shown` is compared last: as a plain condition it would lead databases through half of all policies.
    """
    rows = order.beyond(_listed(Policy.objects.filter(organization=organization)))
    if shown and Policy.objects.filter(shown, organization=organization)[: FEW + 1].count() <= FEW:
        return list(order.first_of_few(_having(rows.filter(shown), words), size))
    if shown:
        rows = rows.alias(is_shown=Case(When(shown, then=Value(1)), default=Value(0))).filter(is_shown=1)
    counted = _counted(words)
    rarest, *others = _rarest_first(counted)
    indexed = _indexed(organization, rows, rarest)
    if others and counted[rarest] > NEAREST:
        nearest = list(order.first_of_few(indexed, NEAREST).values_list("pk", flat=True))
        found = list(order.first_of_few(_having(rows.filter(pk__in=nearest), others), size))
        if len(found) == size or len(nearest) < NEAREST:
            return found
    return list(order.first_of_few(_having(indexed, others), size))


def _indexed(organization: Organization, rows: QuerySet[Policy], word: str) -> QuerySet[Policy]:
    """Those of the organization's that have this word, by the index of texts."""
    index = on(connection)
    # A list that is made once: few of what the index finds by its text have the word in a scope.
    scopes = Attachment.objects.filter(
        index.found_by(index.in_scopes(word)), organization=organization, scope_key__icontains=word
    )
    rows = rows.filter(index.found_by(index.anywhere(word)))
    return rows.filter(Q(search_text__contains=word) | Q(pk__in=scopes.values("policy")))


def _counted(words: list[str]) -> dict[str, int]:
    """The words, with how many policies the index finds for each, up to MANY; a single one needs not be counted."""
    if len(words) == 1:
        return dict.fromkeys(words, MANY)
    with connection.cursor() as cursor:
        cursor.execute(*dialects.counts(on(connection), words, MANY))
        return dict(zip(words, cursor.fetchone(), strict=True))


def _rarest_first(counted: dict[str, int]) -> list[str]:
    """The words by these counts; where those are many, as numbers tell names apart, by how many digits a word has, and
    by its length."""
    return sorted(counted, key=lambda word: (counted[word], -grams.digits(word), -len(word)))


def _listed(rows: QuerySet[Policy]) -> QuerySet[Policy]:
    return rows.defer("text", "reply", "search_text")


def _ordered(rows: QuerySet[Policy], column: str, descending: bool) -> QuerySet[Policy]:
    sign = "-" if descending else ""
    return rows.order_by(f"{sign}{column}", f"{sign}pk")
