"""Conditions of keyset pages: a page begins beyond the last row of the one before."""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, F, Field, Func, Value
from django.db.models.expressions import Expression


class _Row(Func):
    template = "(%(expressions)s)"
    output_field = BooleanField()


class _Compared(Func):
    template = "%(expressions)s"
    output_field = BooleanField()


def beyond(columns: dict[Field[Any, Any], Any], *, descending: bool) -> Expression:
    """Whether a row stands beyond these values of its columns, all of them sorted in one direction.

    Compared as one: told as "less, or the same and less", both databases would read every row that shares the first
    column's value with the page, which may be most of the table.
    """
    here = _Row(*(F(field.name) for field in columns))
    there = _Row(*(Value(value, output_field=field) for field, value in columns.items()))
    return _Compared(here, there, arg_joiner=" < " if descending else " > ")
