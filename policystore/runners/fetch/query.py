"""The SQL of a policy fetch: precedence, canaries, exceptions and break glass, for the fetch and everything else.

A job gets the policy of its most specific scope: workflow before repository before organization before cluster.
"""

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

# Looks up the four keys in the unique index of scope keys, in reverse alphabetical order, and stops at the first match.
# It is the most specific one, because the types of scopes happen to sort that way. There are four parameters, because a
# statement with a list would be planned again for each request.
_PRECEDENCE = """
    SELECT policy_id, organization_id, scope_key FROM policies_attachment
    WHERE scope_key IN (%(workflow)s, %(repository)s, %(organization)s, %(cluster)s) ORDER BY scope_key DESC LIMIT 1
"""
# When the break glass for the job ends. The table has a row for each active one, usually none, and an index on these.
_BREAK_GLASS = """
    SELECT MAX(ends_at) FROM policies_breakglass
    WHERE scope_key IN (%(workflow)s, %(repository)s, %(organization)s, %(cluster)s)
    AND ended_at IS NULL AND ends_at > %(now)s
"""
_POLICY_COLUMNS = (
    "p.id, p.name, p.version, COALESCE(s.egress_policy, p.egress_policy), COALESCE(s.reply, p.reply), s.event_id,"
    " p.open_exceptions"
)
# The policy's staged version, if the job is one of its canaries.
_STAGED = """
LEFT JOIN policies_stagedversion s ON s.policy_id = p.id AND EXISTS (
    SELECT 1 FROM policies_canaryscope c
    WHERE c.staged_id = s.policy_id AND c.scope_key IN (%(workflow)s, %(repository)s, %(organization)s, %(cluster)s)
)
"""
# What `ServedPolicy.from_columns` takes, in its order, and the joins that it comes from, for a statement whose FROM has
# the organization as `o`. `parameters_of` returns the values for all placeholders.
_COLUMNS = f"{_POLICY_COLUMNS}, a.scope_key, ({_BREAK_GLASS})"
_JOINS = f"""
LEFT JOIN ({_PRECEDENCE}) a ON a.organization_id = o.id
LEFT JOIN policies_policy p ON p.id = a.policy_id
{_STAGED}
"""

# The whole fetch in one statement: the key with `digest`, its organization, and the policy.
FETCH = f"""
SELECT k.id, k.kind, k.clusters, o.id, o.key, {_COLUMNS}
FROM accounts_apikey k
JOIN inventory_organization o ON o.id = k.organization_id
{_JOINS}
WHERE k.digest = %(digest)s AND k.revoked_at IS NULL
"""  # noqa: S608 constants only
# The policy of a job of the organization `owner`, without checking a key.
WITHOUT_KEY = f"SELECT {_COLUMNS} FROM inventory_organization o {_JOINS} WHERE o.key = %(owner)s"  # noqa: S608 constants only
# The same, with the organization's id and GitHub's id of it.
FOR_TOKEN = f"SELECT o.id, o.github_id, {_COLUMNS} FROM inventory_organization o {_JOINS} WHERE o.key = %(owner)s"  # noqa: S608 constants only
_BY_NAME = f"""
SELECT {_POLICY_COLUMNS}, '', ({_BREAK_GLASS})
FROM inventory_organization o
JOIN policies_policy p ON p.organization_id = o.id AND p.name_key = %(name)s
{_STAGED}
WHERE o.key = %(owner)s
"""  # noqa: S608 constants only

ScopeKeys = tuple[str, str, str, str]


def parameters_of(scope_keys: ScopeKeys, now: datetime) -> dict[str, str]:
    """Return the values for all placeholders that depend on the job; `now` is in UTC."""
    workflow, repository, organization, cluster = scope_keys
    return {
        "workflow": workflow,
        "repository": repository,
        "organization": organization,
        "cluster": cluster,
        # Both databases compare this text with a time: PostgreSQL parses it, and SQLite stores times as such texts.
        "now": str(now),
    }


class UnservablePolicy(DatabaseError):
    """The database holds a reply that was not compiled by the store, so a runner must not get it.

    Most such texts would turn off blocking silently; a 503 makes the runner try again and report it in the job.
    """


class StoredPolicy(NamedTuple):
    """What the database stores for a job. Only the time decides what is served of it.

    `open_exceptions` is the text of the policy's exceptions; `break_glass_until` is when the job's break glass ends.
    """

    egress_policy: str
    reply: str
    open_exceptions: str = ""
    break_glass_until: datetime | None = None

    def at(self, time: datetime) -> tuple[str, str]:
        """Return the mode and the reply to serve at a time, if nobody changes anything until then."""
        reply = self.reply
        if self.open_exceptions:
            reply = exceptions.with_exceptions(reply, exceptions.open_at(self.open_exceptions, time), time)
        if self.break_glass_until is None or self.break_glass_until <= time:
            return self.egress_policy, reply
        return AUDIT, audited(reply)


class ServedPolicy(NamedTuple):
    """The policy that applies to a job, what is served of it now, and the scope that it comes from.

    If no policy applies, ids are None and texts are empty. `staged_event_id` names the staged version that a canary
    gets instead of the live one. `stored` tells what to serve later.
    """

    policy_id: int | None
    policy_name: str
    policy_version: int | None
    egress_policy: str
    reply: str
    scope_key: str
    break_glass: bool
    staged_event_id: int | None
    stored: StoredPolicy

    @classmethod
    def from_columns(cls, columns: Sequence[Any], now: datetime) -> ServedPolicy:
        """Read the policy's columns of a row that was selected for the time `now`. Raises UnservablePolicy."""
        policy_id, name, version, egress_policy, reply, staged, open_exceptions, scope_key, glass_until = columns
        if policy_id is None:
            return NO_POLICY
        glass_until = None if glass_until is None or egress_policy == AUDIT else _parse_time(glass_until)
        stored = StoredPolicy(egress_policy, reply, open_exceptions, glass_until)
        if not looks_compiled(reply):
            raise UnservablePolicy(
                f"The reply of policy {name!r} was changed in the database; run `manage.py verify_history`."
            )
        try:
            mode, reply_now = stored.at(now)
        except (ValueError, TypeError, KeyError) as error:
            raise UnservablePolicy(
                f"The reply of policy {name!r} is not JSON; run `manage.py verify_history`."
            ) from error
        return cls(policy_id, name, version, mode, reply_now, scope_key, glass_until is not None, staged, stored)


def _parse_time(value: datetime | str) -> datetime:
    """Convert a time from the database, which on SQLite is a text in UTC."""
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value


NO_POLICY = ServedPolicy(None, "", None, "", "", "", False, None, StoredPolicy("", ""))


def policy_for_job(
    owner: str, repository: str, workflow: str, cluster: str = "", *, at: datetime | None = None
) -> ServedPolicy:
    """Return the policy for a job by precedence, or NO_POLICY. Raises DatabaseError."""
    keys = candidate_keys(owner, repository, workflow, cluster)
    now = at or timezone.now()
    return _select(WITHOUT_KEY, {**parameters_of(keys, now), "owner": owner.lower()}, now)


def policy_by_name(owner: str, name: str, repository: str, workflow: str) -> ServedPolicy:
    """Return the named policy as a job gets it, wherever it is attached, or NO_POLICY. Raises DatabaseError."""
    keys = candidate_keys(owner, repository, workflow, "")
    now = timezone.now()
    return _select(_BY_NAME, {**parameters_of(keys, now), "owner": owner.lower(), "name": name.strip().lower()}, now)


def _select(statement: str, parameters: Mapping[str, str], now: datetime) -> ServedPolicy:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row = cursor.fetchone()
    return NO_POLICY if row is None else ServedPolicy.from_columns(row, now)
