"""Pages of what only grows, newest first, where no index finds what is looked for.

A page looks through so many rows and no more, and says where to go on: it takes as long at ten million as at a hundred
thousand, and an index of all texts would cost each job that is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import Model, QuerySet

Row = TypeVar("Row", bound=Model)
ROWS_LOOKED_THROUGH = 20_000


@dataclass(frozen=True, slots=True)
class NewestFirst(Generic[Row]):
    """The rows of a page; `next_before` is the id that the next one begins below, or None on the last page.

    `looked_through` is how many rows were looked through where that ended the page, else 0: there may be more further
    back.
    """

    rows: list[Row]
    next_before: int | None
    looked_through: int = 0


def page(
    fitting: QuerySet[Row], *, size: int, before: int | None = None, among: QuerySet[Row] | None = None
) -> NewestFirst[Row]:
    """The first so many of the fitting rows with ids below `before`.

    `among` holds all rows that have to be looked through to find them, in the order of an index; it is left out where
    an index finds the fitting ones.
    """
    bound = None if among is None else _below(among, before).values_list("pk", flat=True)[ROWS_LOOKED_THROUGH:].first()
    rows = _below(fitting, before)
    found: list[Any] = list((rows if bound is None else rows.filter(pk__gt=bound))[: size + 1])
    if len(found) > size:
        return NewestFirst(found[:size], found[size - 1].pk)
    if bound is None:
        return NewestFirst(found, None)
    return NewestFirst(found, bound + 1, ROWS_LOOKED_THROUGH)


def _below(rows: QuerySet[Row], before: int | None) -> QuerySet[Row]:
    return (rows if before is None else rows.filter(pk__lt=before)).order_by("-pk")
