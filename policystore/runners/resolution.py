"""Which policy applies to a job: the one place that says in SQL what is served, to the fetch and to all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django.db import DatabaseError, connection
from django.utils import timezone

from policystore.policy_language import exceptions
from policystore.policy_language.document import audited, looks_compiled
from policystore.policy_language.scopes import candidate_keys

AUDIT: Final = "audit"

# Look-ups in the unique index of scope keys, from the last key by the alphabet on until one is found: the most specific
# one, since the types of scopes happen to sort so. Four parameters, because one with a list would be planned anew at
# each request.
_LADDER = """
    SELECT policy_id, organization_id, scope_key FROM policies_attachment
    WHERE scope_key IN (%(workflow)s, %(repository)s, %(organization)s, %(cluster)s) ORDER BY scope_key DESC LIMIT 1
"""
# Until when a break glass holds for the job. The table has a row for each one that is open, mostly none, and an index
# over just these.
_BREAK_GLASS = """
    SELECT MAX(ends_at) FROM policies_breakglass
    WHERE scope_key IN (%(workflow)s, %(repository)s, %(organization)s, %(cluster)s)
    AND ended_at IS NULL AND ends_at > %(moment)s
"""
# What is served, for a statement whose FROM has the organization as `o`: the columns that `Served.read` takes, in its
# order, and where they come from. `parameters` fills the placeholders of all.
_OF_POLICY = (
    "p.id, p.name, p.version, COALESCE(s.egress_policy, p.egress_policy), COALESCE(s.reply, p.reply), s.event_id,"
    " p.excepted"
)
# The policy's staged version, where the job is one of its canaries.
_STAGED = """
LEFT JOIN policies_stagedversion s ON s.policy_id = p.id AND EXISTS (
    SELECT 1 FROM policies_canaryscope c
    WHERE c.staged_id = s.policy_id AND c.scope_key IN (%(workflow)s, %(repository)s, %(organization)s, %(cluster)s)
)
"""
COLUMNS = f"{_OF_POLICY}, a.scope_key, ({_BREAK_GLASS})"
JOINS = f"""
LEFT JOIN ({_LADDER}) a ON a.organization_id = o.id
LEFT JOIN policies_policy p ON p.id = a.policy_id
{_STAGED}
"""

STATEMENT = f"SELECT {COLUMNS} FROM inventory_organization o {JOINS} WHERE o.key = %(owner)s"  # noqa: S608 constants alone
_NAMED = f"""
SELECT {_OF_POLICY}, '', ({_BREAK_GLASS})
FROM inventory_organization o
JOIN policies_policy p ON p.organization_id = o.id AND p.name_key = %(name)s
{_STAGED}
WHERE o.key = %(owner)s
"""  # noqa: S608 constants alone

ScopeKeys = tuple[str, str, str, str]


def parameters(scope_keys: ScopeKeys, at: datetime) -> dict[str, str]:
    """The values for the placeholders of COLUMNS and JOINS, for a job at a moment in UTC."""
    workflow, repository, organization, cluster = scope_keys
    # Both databases compare the text of the moment with a time: PostgreSQL reads it, on SQLite times are such texts.
    return {
        "workflow": workflow,
        "repository": repository,
        "organization": organization,
        "cluster": cluster,
        "moment": str(at),
    }


class Unservable(DatabaseError):
    """The database has something that was never compiled, so that a runner must not get it.

    Most texts would turn blocking off without a word; a 503 makes the runner try again, and say so in the job.
    """


class Stored(NamedTuple):
    """What is stored of the policy for a job, of which nothing but the time decides what is served.

    `excepted` is the text of its open exceptions, `glass_until` when the break glass ends that holds for the job.
    """

    egress_policy: str
    reply: str
    excepted: str = ""
    glass_until: datetime | None = None

    def at(self, moment: datetime) -> tuple[str, str]:
        """The mode and the reply that are served at a moment, if nobody changes anything until then."""
        reply = self.reply
        if self.excepted:
            reply = exceptions.with_exceptions(reply, exceptions.open_at(self.excepted, moment), moment)
        if self.glass_until is None or self.glass_until <= moment:
            return self.egress_policy, reply
        return AUDIT, audited(reply)


class Served(NamedTuple):
    """The policy that applies to a job, what is served of it now, and the scope that it comes from.

    Ids are None and texts empty where nothing applies. `staged_event_id` names the staged version that a canary gets in
    place of the live one. `stored` tells what will be served as time goes by.
    """

    policy_id: int | None
    policy_name: str
    policy_version: int | None
    egress_policy: str
    reply: str
    scope_key: str
    break_glass: bool
    staged_event_id: int | None
    stored: Stored

    @classmethod
    def read(cls, columns: Sequence[Any], at: datetime) -> Served:
        """What a row says in the columns of COLUMNS, at the moment for which it was looked up. Raises Unservable."""
        policy_id, name, version, egress_policy, reply, staged, excepted, scope_key, glass_until = columns
        if policy_id is None:
            return NOTHING
        glass_until = None if glass_until is None or egress_policy == AUDIT else _moment(glass_until)
        stored = Stored(egress_policy, reply, excepted, glass_until)
        if not looks_compiled(reply):
            raise Unservable(
                f"The reply of policy {name!r} was changed in the database; run `manage.py verify_history`."
            )
        try:
            now, reply_now = stored.at(at)
        except (ValueError, TypeError, KeyError) as error:
            raise Unservable(f"The reply of policy {name!r} is not JSON; run `manage.py verify_history`.") from error
        return cls(policy_id, name, version, now, reply_now, scope_key, glass_until is not None, staged, stored)


def _moment(value: datetime | str) -> datetime:
    """A time as the database gives it: SQLite has a text in UTC."""
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value


NOTHING = Served(None, "", None, "", "", "", False, None, Stored("", ""))


def resolve(owner: str, repository: str, workflow: str, cluster: str = "", *, at: datetime | None = None) -> Served:
    """Workflow before repository before organization before cluster, in one statement. Raises DatabaseError."""
    keys = candidate_keys(owner, repository, workflow, cluster)
    now = at or timezone.now()
    return _first(STATEMENT, {**parameters(keys, now), "owner": owner.lower()}, now)


def resolve_named(owner: str, name: str, repository: str, workflow: str) -> Served:
    """The policy of that name, for a job that asks for it by name wherever it is attached. Raises DatabaseError."""
    keys = candidate_keys(owner, repository, workflow, "")
    now = timezone.now()
    return _first(_NAMED, {**parameters(keys, now), "owner": owner.lower(), "name": name.strip().lower()}, now)


def _first(statement: str, values: Mapping[str, str], at: datetime) -> Served:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        row = cursor.fetchone()
    return NOTHING if row is None else Served.read(row, at)
