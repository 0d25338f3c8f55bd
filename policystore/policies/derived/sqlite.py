# ruff: noqa: S608 statements are put together from names that stand here
"""On SQLite by FTS5, which cuts texts into runs of three characters itself, and keeps no copy of them.

Django makes a table anew to alter it there, and forgets its triggers: `install` looks after each migration whether they
are there, and else makes and fills everything again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from django.db.models import Q
from django.db.models.expressions import RawSQL

from policystore.policies.derived import grams
from policystore.policies.derived.dialects import Parameters, Statement

# What is indexed ends with this, so that its last characters begin a run of three as well.
_PADDING = "char(10) || char(10)"
_LAST = "\U0010ffff"
_FACTS = "{row}.egress_policy, {row}.attachment_count = 0, {row}.risk_count > 0"
_COUNTS = "policies_policy_counts (organization_id, total, block, audit, unattached, risky)"
_COUNTED = """
    {sign}1, {sign}({row}.egress_policy = 'block'), {sign}({row}.egress_policy = 'audit'),
    {sign}({row}.attachment_count = 0), {sign}({row}.risk_count > 0)
"""


def _index(table: str, column: str) -> tuple[str, ...]:
    index = f"{table}_search"
    old, new = f"old.{column} || {_PADDING}", f"new.{column} || {_PADDING}"
    forget = f"INSERT INTO {index} ({index}, rowid, body) VALUES ('delete', old.id, {old})"
    learn = f"INSERT INTO {index} (rowid, body) VALUES (new.id, {new})"
    return (
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {index} USING fts5(body, content='', detail='none', tokenize='trigram')",
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {table}_terms USING fts5vocab('{index}', 'row')",
        f"CREATE TRIGGER IF NOT EXISTS {index}_insert AFTER INSERT ON {table} BEGIN {learn}; END",
        f"CREATE TRIGGER IF NOT EXISTS {index}_delete AFTER DELETE ON {table} BEGIN {forget}; END",
        f"CREATE TRIGGER IF NOT EXISTS {index}_update AFTER UPDATE OF {column} ON {table}"
        f" WHEN old.{column} <> new.{column} BEGIN {forget}; {learn}; END",
    )


def _count(sign: str, row: str) -> str:
    # The statements are put together from the names above alone.
    return f"INSERT INTO {_COUNTS} SELECT {row}.organization_id, {_COUNTED.format(sign=sign, row=row)};"


_INDEXED = {"policies_policy": "search_text", "policies_attachment": "scope_key"}
_TRIGGERS = 9
_STRUCTURE = (
    *(statement for table, column in _INDEXED.items() for statement in _index(table, column)),
    """
    CREATE TABLE IF NOT EXISTS policies_policy_counts (
        id integer PRIMARY KEY, organization_id integer NOT NULL, total integer NOT NULL, block integer NOT NULL,
        audit integer NOT NULL, unattached integer NOT NULL, risky integer NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS policies_policy_counts_of ON policies_policy_counts (organization_id)",
    "DELETE FROM policies_policy_counts",
    "CREATE TRIGGER IF NOT EXISTS policies_policy_counts_insert AFTER INSERT ON policies_policy"
    f" BEGIN {_count('', 'new')} END",
    "CREATE TRIGGER IF NOT EXISTS policies_policy_counts_delete AFTER DELETE ON policies_policy"
    f" BEGIN {_count('-', 'old')} END",
    "CREATE TRIGGER IF NOT EXISTS policies_policy_counts_update AFTER UPDATE OF egress_policy, attachment_count,"
    f" risk_count ON policies_policy WHEN ({_FACTS.format(row='old')}) <> ({_FACTS.format(row='new')})"
    f" BEGIN {_count('-', 'old')} {_count('', 'new')} END",
    f"""
    INSERT INTO {_COUNTS} SELECT organization_id, count(*), sum(egress_policy = 'block'), sum(egress_policy = 'audit'),
        sum(attachment_count = 0), sum(risk_count > 0) FROM policies_policy GROUP BY organization_id
    """,
)


def _emptied(table: str) -> tuple[str, str]:
    return f"DROP TABLE IF EXISTS {table}_terms", f"DROP TABLE IF EXISTS {table}_search"


def _filled(table: str, column: str) -> str:
    return f"INSERT INTO {table}_search (rowid, body) SELECT id, {column} || {_PADDING} FROM {table}"


class Sqlite:
    """SQLite, on which one transaction makes and fills it all: nobody else writes meanwhile."""

    structure = (
        *(statement for table in _INDEXED for statement in _emptied(table)),
        *_STRUCTURE,
        *(_filled(table, column) for table, column in _INDEXED.items()),
    )
    fills: Mapping[str, str] = {}
    afterwards: tuple[str, ...] = ()

    def is_whole(self, ask: Callable[[str], int]) -> bool:
        """Whether every trigger is there."""
        tables = ", ".join(f"'{table}'" for table in _INDEXED)
        found = f"SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({tables})"
        return ask(found) == _TRIGGERS

    def in_texts(self, word: str) -> Statement:
        """By the runs of a word; by all runs that begin with it for a word that is shorter than one."""
        return _matching("policies_policy", word)

    def in_scopes(self, word: str) -> Statement:
        """The same."""
        return _matching("policies_attachment", word)

    def anywhere(self, word: str) -> Statement:
        """The same."""
        (texts, in_texts), (scopes, in_scopes) = self.in_texts(word), self.in_scopes(word)
        # Not as `id IN`, for which all of them would be found before the first.
        policies = f"SELECT policy_id FROM ({scopes}) AS scopes CROSS JOIN policies_attachment ON id = scopes.rowid"
        return f"{texts} UNION ALL {policies}", (*in_texts, *in_scopes)

    def found_by(self, statement: Statement) -> Q:
        """One by one."""
        return Q(pk__in=RawSQL(*statement))  # noqa: S611 words are among the parameters


def _matching(table: str, word: str) -> Statement:
    has_runs = bool(grams.of_word(word))
    parameters = _matched(word) if has_runs else (word.lower(), word.lower() + _LAST)
    return _MATCHING[has_runs].format(table=table), parameters


def _matched(word: str) -> Parameters:
    counted = grams.numbered(word)[:_COUNTED_RUNS]
    return json.dumps([_quoted(gram) for gram in counted]), " AND ".join(_quoted(gram) for gram in grams.of_word(word))


# FTS5 refuses to look for nothing.
_BEGINNING = """(
    SELECT coalesce(group_concat('"' || replace(term, '"', '""') || '"', ' OR '), '"' || char(10, 10, 10) || '"')
    FROM {table}_terms WHERE term >= %s AND term < %s
)"""
# FTS5 walks the list of each run to its end, however few texts another has. Where names are numbered, the numbers tell
# them apart: some runs of these are counted, though not beyond what is many, and if any is rarer such runs do alone.
_COUNTED_RUNS = 4
_MANY = 4000
_FOUND = f"SELECT count(*) FROM (SELECT 1 FROM {{table}}_search WHERE {{table}}_search MATCH value LIMIT {_MANY})"
_RARE = f"""coalesce((
    SELECT group_concat(run, ' AND ') FROM (SELECT value AS run, ({_FOUND}) AS found FROM json_each(%s))
    WHERE found < {_MANY}
), %s)"""
_MATCHING = {
    True: "SELECT rowid FROM {table}_search WHERE {table}_search MATCH " + _RARE,
    False: "SELECT rowid FROM {table}_search WHERE {table}_search MATCH " + _BEGINNING,
}


def _quoted(gram: str) -> str:
    return '"' + gram.replace('"', '""') + '"'
