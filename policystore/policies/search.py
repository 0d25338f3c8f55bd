"""Search for policies: substring matches that ignore case.

PostgreSQL answers them with trigram indexes where it has the extension pg_trgm (see `db.online_migrations`). Without
these it reads the whole table, and so does SQLite: 100,000 policies take it 0.1 to 0.2 s.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, F, Func, Q, QuerySet
from django.db.models.sql.compiler import SQLCompiler

from policystore.inventory.models import Organization
from policystore.policies.models import Attachment, Policy

# Each word is a condition of its own in the statement.
MAX_WORDS = 8


def search_words(search: str) -> list[str]:
    """The words in a search box, at most MAX_WORDS; further ones are ignored."""
    return search.split()[:MAX_WORDS]


def matching(organization: Organization, search: str) -> Q:
    """The condition that a policy's name, description, endpoints or scopes contain every word of the search."""
    condition = Q()
    for word in search_words(search.lower()):
        attachments = Attachment.objects.filter(scope_key__icontains=word, organization=organization).order_by()
        condition &= Q(search_text__contains=word) | Q(_IsAnyOf(F("pk"), attachments.values("policy")))
    return condition


def scanned(organization: Organization, column: str) -> QuerySet[Policy]:
    """The organization's policies with `sorted_by`, a copy of the column, for a list in which few rows match.

    SQLite would follow the index of the order to each row of the organization. At 100,000 policies this takes four
    times as long as reading the table and sorting the matches.
    """
    rows = Policy.objects.alias(owner=_Unindexed(F("organization_id"))).filter(owner=organization.pk)
    return rows.annotate(sorted_by=_Unindexed(F(column)))


class _Unindexed(Func):
    """A column for which SQLite uses no index. PostgreSQL knows from its statistics when to use one."""

    arity = 1
    template = "%(expressions)s"

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="+%(expressions)s", **context)


class _IsAnyOf(Func):
    """Whether a value is in a subquery's result. PostgreSQL combines indexes for an array, but not for IN."""

    output_field = BooleanField()
    arity = 2
    template = "%(expressions)s)"
    arg_joiner = " = ANY (ARRAY"

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="%(expressions)s", arg_joiner=" IN ", **context)
