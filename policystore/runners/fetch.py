"""Answers a runner that asks for its policy: the one path that must never be slow, wrong or away.

The clients fail open, so the whole way is one SQL statement (key, organization, most specific attachment, stored
reply), and while the database is away each process goes on serving the last good answers that it gave.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from django.db import Error, connection

from policystore.accounts import api_keys
from policystore.policy_language.scopes import candidate_keys, canonical_workflow
from policystore.runners import recorder, resolution
from policystore.runners.cluster_address import cluster_of
from policystore.runners.cluster_limit import outside_limit
from policystore.runners.fallback_cache import MARK, Answers
from policystore.runners.fetch_query import Database, Statement
from policystore.runners.http import storable
from policystore.runners.resolution import ScopeKeys, Served, Unservable
from policystore.runners.responses import Reply, refusal
from policystore.web import metrics

logger = logging.getLogger(__name__)

# Of all answers of a process together, so that no policy's size can make it large.
REMEMBERED_ANSWERS = 20_000
REMEMBERED_BYTES = 16 * 1024 * 1024
MAX_QUERY_LENGTH = 8192

STATEMENT = Statement(f"""
SELECT k.id, k.kind, k.clusters, o.id, o.key, {resolution.COLUMNS}
FROM accounts_apikey k
JOIN inventory_organization o ON o.id = k.organization_id
{resolution.JOINS}
WHERE k.digest = %(digest)s AND k.revoked_at IS NULL
""")  # noqa: S608 constants only
_NOBODY = resolution.parameters(("", "", "", ""), datetime(2000, 1, 1, tzinfo=UTC)) | {"digest": ""}
_WITHOUT_KEY = Statement(resolution.STATEMENT)
database = Database(STATEMENT, _NOBODY)


class FetchRequest(NamedTuple):
    """What a runner says when it asks for its policy; every field is text that may be empty or nonsense."""

    owner: str
    repository: str
    workflow: str
    run_id: str
    correlation_id: str
    cluster: str
    api_key: str

    @classmethod
    def read(cls, owner: str, repository: str, environ: Mapping[str, Any]) -> FetchRequest:
        """Read the request from the names in its path and its WSGI environ (Django's `request.META`)."""
        query = parameters_of(environ.get("QUERY_STRING", "")[:MAX_QUERY_LENGTH])
        return cls(
            owner=canonical_owner(owner),
            repository=storable(repository),
            workflow=canonical_workflow(storable(query.get("workflow", ""))),
            run_id=storable(query.get("run_id", ""))[:64],
            correlation_id=storable(query.get("correlationId") or query.get("correlation_id", ""))[:255],
            cluster=storable(cluster_of(environ, query.get("cluster", ""))),
            api_key=_api_key(environ.get("HTTP_AUTHORIZATION", "")),
        )

    @property
    def scope_keys(self) -> ScopeKeys:
        """The keys of the scopes that may hold the policy, most specific first."""
        return candidate_keys(self.owner, self.repository, self.workflow, self.cluster)


def parameters_of(query_string: str) -> dict[str, str]:
    """The parameters of a raw query string, the last of each name."""
    if "%" in query_string or "+" in query_string:
        return dict(parse_qsl(query_string, keep_blank_values=True, errors="replace"))
    # What parse_qsl says where there is nothing to unescape, in a third of its time.
    return {name: value for name, _, value in (pair.partition("=") for pair in query_string.split("&") if pair)}


def canonical_owner(owner: str) -> str:
    """The organization that `owner` names: hooks for GitHub Enterprise Server send `customer::server::owner`."""
    return storable(owner).rsplit("::", 1)[-1].lower()


def _api_key(authorization: str) -> str:
    scheme, _, key = authorization.strip().partition(" ")
    return key.strip() if scheme.lower() == "vm-api-key" else ""


UNAUTHORIZED = refusal(401, "unauthorized", "Send a runner API key of this organization as `vm-api-key KEY`.")
FOREIGN = refusal(403, "forbidden", "This API key belongs to another organization.")
WRONG_KIND = refusal(403, "forbidden", "This is no runner API key; use a VM or an ARC key.")
NO_POLICY = refusal(404, "no_policy", "No policy is attached to this workflow, repository, organization or cluster.")
RUNNER_KINDS = ("vm", "arc")


def answer(request: FetchRequest) -> Reply:
    """The policy that applies to the job, or why there is none: 200, 401, 403, 404, or 503 as the last resort."""
    began = time.perf_counter()
    reply = _answer(request)
    outcome = metrics.REMEMBERED if reply.headers is MARK else str(reply.status)
    metrics.count_fetch(outcome, time.perf_counter() - began)
    return reply


def _answer(request: FetchRequest) -> Reply:
    if not api_keys.well_formed(request.api_key):
        return UNAUTHORIZED
    digest = api_keys.digest_of(request.api_key)
    scope_keys, now = request.scope_keys, datetime.now(UTC)
    asked = (*scope_keys, digest)
    parameters = resolution.parameters(scope_keys, now)
    parameters["digest"] = digest
    try:
        row = database.first_row(STATEMENT, parameters)
    except Error as error:
        logger.error("The database is unavailable (%s); serving the last good answers", error)
        return _remembered.recall(asked)
    if row is None:
        _remembered.drop(asked)
        return UNAUTHORIZED
    key_id, kind, clusters, organization_id, organization_key, *columns = row
    if organization_key != request.owner:
        return FOREIGN
    if kind not in RUNNER_KINDS:
        return WRONG_KIND
    if not api_keys.allows_cluster(clusters, request.cluster):
        # The key may have had no limit when this was answered before.
        _remembered.drop(asked)
        return outside_limit(clusters, request.cluster)
    try:
        served = Served.read(columns, now)
    except Unservable:
        logger.exception("Not served; where this process remembers the last good answer, it is given")
        return _remembered.recall(asked)
    reply = reply_of(served)
    try:
        _remembered.keep(asked, served.stored)
        _record(request, served, key_id=key_id, organization_id=organization_id, at=now)
    except Exception:
        # A job must not lose its policy over the books that are kept of it.
        logger.exception("A fetch was answered and not recorded")
    return reply


def _record(request: FetchRequest, served: Served, *, key_id: int, organization_id: int, at: datetime) -> None:
    recorder.record(
        recorder.Fetch(
            key_id=key_id,
            organization_id=organization_id,
            repository=request.repository,
            workflow=request.workflow,
            run_id=request.run_id,
            correlation_id=request.correlation_id,
            cluster=request.cluster,
            policy_id=served.policy_id,
            policy_name=served.policy_name,
            policy_version=served.policy_version,
            egress_policy=served.egress_policy,
            break_glass=served.break_glass,
            staged_event_id=served.staged_event_id,
            scope_key=served.scope_key,
            at=at,
        )
    )


def probe() -> None:
    """Run the statement of a fetch for no one. Raises django.db.Error where fetches would fail."""
    with connection.cursor() as cursor:
        cursor.execute(STATEMENT.text, _NOBODY)


def served_to(owner: str, repository: str, workflow: str, cluster: str) -> Served:
    """What a job is served, whoever asks; as quickly as a fetch. Raises django.db.Error."""
    scope_keys, now = candidate_keys(owner, repository, workflow, cluster), datetime.now(UTC)
    row = database.first_row(_WITHOUT_KEY, resolution.parameters(scope_keys, now) | {"owner": owner.lower()})
    return resolution.NOTHING if row is None else Served.read(row, now)


def reply_of(served: Served) -> Reply:
    """What a runner that may ask is answered: the policy as it is served, or 404."""
    return _reply(served.egress_policy, served.reply)


def _reply(_: str, reply: str) -> Reply:
    return Reply(status=200, body=reply.encode()) if reply else NO_POLICY


_remembered = Answers(most=REMEMBERED_ANSWERS, most_bytes=REMEMBERED_BYTES, reply_of=_reply)
forget_answers = _remembered.forget
