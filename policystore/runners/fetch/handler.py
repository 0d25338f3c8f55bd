"""Answers a runner that fetches its policy: the one path that must never be slow, wrong or unavailable.

The clients fail open, so the whole fetch is one SQL statement (key, organization, most specific attachment, stored
reply). While the database is unavailable, each process keeps serving the last good answers that it gave.
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
from policystore.runners.clusters import cluster_of, outside_limit
from policystore.runners.fetch import query, recorder
from policystore.runners.fetch.connection_pool import Database, Statement
from policystore.runners.fetch.fallback_cache import FALLBACK_HEADERS, FallbackCache
from policystore.runners.fetch.query import ScopeKeys, ServedPolicy, UnservablePolicy
from policystore.web import metrics
from policystore.web.json_api import Reply, refusal, storable

logger = logging.getLogger(__name__)

# The limits hold for all answers of a process together, so that no policy's size can make it large.
MAX_CACHED_ANSWERS = 20_000
MAX_CACHED_BYTES = 16 * 1024 * 1024
MAX_QUERY_LENGTH = 8192
RUNNER_KEY_KINDS = ("vm", "arc")

UNAUTHORIZED = refusal(401, "unauthorized", "Send a runner API key of this organization as `vm-api-key KEY`.")
OTHER_ORGANIZATION = refusal(403, "forbidden", "This API key belongs to another organization.")
NOT_A_RUNNER_KEY = refusal(403, "forbidden", "This is not a runner API key. Use a VM or ARC key.")
NO_POLICY = refusal(404, "no_policy", "No policy is attached to this workflow, repository, organization or cluster.")

STATEMENT = Statement(query.FETCH)
_WITHOUT_KEY = Statement(query.WITHOUT_KEY)
_PROBE_PARAMETERS = query.parameters_of(("", "", "", ""), datetime(2000, 1, 1, tzinfo=UTC)) | {"digest": ""}
database = Database(STATEMENT, _PROBE_PARAMETERS)


class FetchRequest(NamedTuple):
    """What a runner sends when it fetches its policy; any field may be empty or nonsense."""

    owner: str
    repository: str
    workflow: str
    run_id: str
    correlation_id: str
    cluster: str
    api_key: str

    @classmethod
    def parse(cls, owner: str, repository: str, environ: Mapping[str, Any]) -> FetchRequest:
        """Parse the request from the names in its path and its WSGI environ (Django's `request.META`)."""
        parameters = parse_query(environ.get("QUERY_STRING", "")[:MAX_QUERY_LENGTH])
        return cls(
            owner=canonical_owner(owner),
            repository=storable(repository),
            workflow=canonical_workflow(storable(parameters.get("workflow", ""))),
            run_id=storable(parameters.get("run_id", ""))[:64],
            correlation_id=storable(parameters.get("correlationId") or parameters.get("correlation_id", ""))[:255],
            cluster=storable(cluster_of(environ, parameters.get("cluster", ""))),
            api_key=_api_key(environ.get("HTTP_AUTHORIZATION", "")),
        )

    @property
    def scope_keys(self) -> ScopeKeys:
        """The keys of the scopes that may have a policy, most specific first."""
        return candidate_keys(self.owner, self.repository, self.workflow, self.cluster)


def parse_query(query_string: str) -> dict[str, str]:
    """Parse a raw query string; the last value of each name counts."""
    if "%" in query_string or "+" in query_string:
        return dict(parse_qsl(query_string, keep_blank_values=True, errors="replace"))
    # The result of parse_qsl if there is nothing to unescape, in a third of its time.
    return {name: value for name, _, value in (pair.partition("=") for pair in query_string.split("&") if pair)}


def canonical_owner(owner: str) -> str:
    """Return the key of the organization; hooks for GitHub Enterprise Server send `customer::server::owner`."""
    return storable(owner).rsplit("::", 1)[-1].lower()


def _api_key(header: str) -> str:
    scheme, key = api_keys.parse_authorization(header)
    return key if scheme == "vm-api-key" else ""


def answer(request: FetchRequest) -> Reply:
    """Return the policy that applies to the job (200), or why there is none: 401, 403, 404, or 503 as a last resort."""
    started = time.perf_counter()
    reply = _answer(request)
    outcome = metrics.REMEMBERED if reply.headers is FALLBACK_HEADERS else str(reply.status)
    metrics.count_fetch(outcome, time.perf_counter() - started)
    return reply


def _answer(request: FetchRequest) -> Reply:
    if not api_keys.well_formed(request.api_key):
        return UNAUTHORIZED
    digest = api_keys.digest_of(request.api_key)
    scope_keys, now = request.scope_keys, datetime.now(UTC)
    cache_key = (*scope_keys, digest)
    parameters = query.parameters_of(scope_keys, now)
    parameters["digest"] = digest
    try:
        row = database.first_row(STATEMENT, parameters)
    except Error as error:
        logger.error("The database is unavailable (%s); serving the last good answers", error)
        return _cache.reply(cache_key)
    if row is None:
        _cache.drop(cache_key)
        return UNAUTHORIZED
    key_id, kind, clusters, organization_id, organization_key, *columns = row
    if organization_key != request.owner:
        return OTHER_ORGANIZATION
    if kind not in RUNNER_KEY_KINDS:
        return NOT_A_RUNNER_KEY
    if not api_keys.allows_cluster(clusters, request.cluster):
        # When this was answered before, the key may have had no limit.
        _cache.drop(cache_key)
        return outside_limit(clusters, request.cluster)
    try:
        policy = ServedPolicy.from_columns(columns, now)
    except UnservablePolicy:
        logger.exception("The policy cannot be served; serving this process's last good answer if there is one")
        return _cache.reply(cache_key)
    reply = reply_of(policy)
    try:
        _cache.keep(cache_key, policy.stored)
        _record(request, policy, key_id=key_id, organization_id=organization_id, at=now)
    except Exception:
        # A job must not lose its policy because of the records that are kept of it.
        logger.exception("A fetch was answered but not recorded")
    return reply


def _record(request: FetchRequest, policy: ServedPolicy, *, key_id: int, organization_id: int, at: datetime) -> None:
    recorder.record(
        recorder.Fetch(
            key_id=key_id,
            organization_id=organization_id,
            repository=request.repository,
            workflow=request.workflow,
            run_id=request.run_id,
            correlation_id=request.correlation_id,
            cluster=request.cluster,
            policy_id=policy.policy_id,
            policy_name=policy.policy_name,
            policy_version=policy.policy_version,
            egress_policy=policy.egress_policy,
            break_glass=policy.break_glass,
            staged_event_id=policy.staged_event_id,
            scope_key=policy.scope_key,
            at=at,
        )
    )


def probe() -> None:
    """Run the statement of a fetch for no key. Raises django.db.Error if fetches would fail."""
    with connection.cursor() as cursor:
        cursor.execute(STATEMENT.text, _PROBE_PARAMETERS)


def policy_served_to(owner: str, repository: str, workflow: str, cluster: str) -> ServedPolicy:
    """Return the policy for a job without checking a key, as quickly as a fetch. Raises django.db.Error."""
    scope_keys, now = candidate_keys(owner, repository, workflow, cluster), datetime.now(UTC)
    row = database.first_row(_WITHOUT_KEY, query.parameters_of(scope_keys, now) | {"owner": owner.lower()})
    return query.NO_POLICY if row is None else ServedPolicy.from_columns(row, now)


def reply_of(policy: ServedPolicy) -> Reply:
    """Return the reply to a runner with a valid key: the policy as it is served, or 404."""
    return _reply(policy.egress_policy, policy.reply)


def _reply(_: str, reply: str) -> Reply:
    return Reply(status=200, body=reply.encode()) if reply else NO_POLICY


_cache = FallbackCache(max_answers=MAX_CACHED_ANSWERS, max_bytes=MAX_CACHED_BYTES, reply_of=_reply)
clear_cache = _cache.clear
