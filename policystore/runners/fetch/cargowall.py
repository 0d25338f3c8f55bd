"""Answers CargoWall's action, which asks with a GitHub OIDC token and names its job.

One client version goes on without any firewall if no answer comes, so a request never waits for anything but the
database: while another one fetches the issuer's keys, it is asked to try again. 404, which no setting of the client
turns into a failure, means that the workflow's own list applies; whatever cannot be decided is a 503.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import Error

from policystore.accounts import api_keys
from policystore.enforcers import cargowall
from policystore.enforcers.policy import EffectivePolicy
from policystore.policy_language.document import read_reply
from policystore.policy_language.scopes import candidate_keys, canonical_workflow
from policystore.runners import oidc
from policystore.runners.fetch import query, recorder
from policystore.runners.fetch.connection_pool import Statement
from policystore.runners.fetch.fallback_cache import FallbackCache
from policystore.runners.fetch.handler import MAX_QUERY_LENGTH, canonical_owner, database, parse_query
from policystore.runners.fetch.query import ScopeKeys, ServedPolicy, UnservablePolicy
from policystore.web.json_api import Refused, Reply, refusal, refuse, storable

logger = logging.getLogger(__name__)

PATH = "/api/cargowall/v1/action/policy"
AUDIENCE = "codecargo"
# Long enough for a request that only looks a key up, and no more.
WAIT_FOR_KEYS_SECONDS = 0.1
MAX_CACHED_ANSWERS = 5_000
MAX_CACHED_BYTES = 4 * 1024 * 1024
CACHED_FORMS = 500
_CORRELATION_ID = re.compile(r"cargowall-\d+-")

NO_TOKEN = refusal(401, "unauthorized", "Send a GitHub OIDC token with the audience codecargo as `Bearer TOKEN`.")
OTHER_ACCOUNT = refusal(403, "forbidden", "The token belongs to another account than the organization of this name.")
NO_POLICY = refusal(404, "no_policy", "No policy is attached to this workflow, repository or organization.")
NO_KEYS = refusal(
    503,
    "issuer_unavailable",
    "The token cannot be verified now, because the signing keys of its issuer cannot be fetched. Try again.",
    headers=(("Retry-After", "1"),),
)

_STATEMENT = Statement(query.FOR_TOKEN)


def is_correlation_id(text: str) -> bool:
    """True for what identifies a job of CargoWall, which anyone can guess: only its tokens may speak for it."""
    return _CORRELATION_ID.match(text) is not None


class Job(NamedTuple):
    """The job that a token and a request name; the workflow is the caller's, whatever reusable one it runs in."""

    owner: str
    owner_id: str
    repository: str
    workflow: str
    run_id: str
    correlation_id: str

    @classmethod
    def parse(cls, claims: Mapping[str, Any], job_key: str) -> Job:
        """Read the claims of a verified token."""
        attempt = storable(str(claims.get("run_attempt", "1")))
        workflow = storable(str(claims.get("workflow_ref", ""))).partition("@")[0]
        return cls(
            owner=canonical_owner(str(claims["repository_owner"])),
            owner_id=str(claims.get("repository_owner_id", "")),
            repository=storable(str(claims.get("repository", ""))).rpartition("/")[2],
            workflow=canonical_workflow(workflow.rpartition("/.github/workflows/")[2]),
            run_id=storable(str(claims.get("run_id", "")))[:64],
            correlation_id=f"cargowall-{attempt}-{storable(job_key)}"[:255],
        )

    def is_of_account(self, github_id: int | None) -> bool:
        """False if the organization of this name is another account of GitHub than the token's."""
        return not self.owner_id or github_id is None or str(github_id) == self.owner_id

    @property
    def scope_keys(self) -> ScopeKeys:
        """The keys of the scopes that may have a policy, most specific first."""
        return candidate_keys(self.owner, self.repository, self.workflow, "")


def answer(environ: Mapping[str, Any]) -> Reply:
    """Return the policy for a job (200), or why there is none: 401, 403, 404, or 503 if that cannot be decided now."""
    try:
        claims = verified_claims(environ.get("HTTP_AUTHORIZATION", ""), wait_seconds=WAIT_FOR_KEYS_SECONDS)
    except Refused as refused:
        return refused.reply
    parameters = parse_query(environ.get("QUERY_STRING", "")[:MAX_QUERY_LENGTH])
    return _answer(Job.parse(claims, parameters.get("job_key", "")))


def verified_claims(authorization: str, *, wait_seconds: float) -> Mapping[str, Any]:
    """Return the claims of the token in a header. Raises Refused: 401, or 503 if the token cannot be verified now."""
    scheme, token = api_keys.parse_authorization(authorization)
    if scheme != "bearer":
        raise Refused(NO_TOKEN)
    try:
        return oidc.verified_claims(token, audience=AUDIENCE, wait_seconds=wait_seconds)
    except oidc.TokenRefused as refused:
        raise refuse(401, "unauthorized", str(refused)) from refused
    except oidc.IssuerUnavailable as error:
        logger.warning("A token cannot be verified: %s", error)
        raise Refused(NO_KEYS) from error


def _answer(job: Job) -> Reply:
    scope_keys, now = job.scope_keys, datetime.now(UTC)
    cache_key = (*scope_keys, job.owner_id)
    try:
        row = database.first_row(_STATEMENT, query.parameters_of(scope_keys, now) | {"owner": job.owner})
        if row is None:
            return NO_POLICY
        organization_id, github_id, *columns = row
        if not job.is_of_account(github_id):
            _cache.drop(cache_key)
            return OTHER_ACCOUNT
        policy = ServedPolicy.from_columns(columns, now)
    except UnservablePolicy:
        logger.exception("The policy cannot be served; serving this process's last good answer if there is one")
        return _cache.reply(cache_key)
    except Error as error:
        logger.error("The database is unavailable (%s); serving the last good answers", error)
        return _cache.reply(cache_key)
    reply = _reply(policy.egress_policy, policy.reply)
    try:
        _cache.keep(cache_key, policy.stored)
        recorder.record(_fetch(job, policy, organization_id=organization_id, at=now))
    except Exception:
        # A job must not lose its policy because of the records that are kept of it.
        logger.exception("A fetch was answered but not recorded")
    return reply


def _fetch(job: Job, policy: ServedPolicy, *, organization_id: int, at: datetime) -> recorder.Fetch:
    return recorder.Fetch(
        key_id=None,
        organization_id=organization_id,
        repository=job.repository,
        workflow=job.workflow,
        run_id=job.run_id,
        correlation_id=job.correlation_id,
        cluster="",
        policy_id=policy.policy_id,
        policy_name=policy.policy_name,
        policy_version=policy.policy_version,
        egress_policy=policy.egress_policy,
        break_glass=policy.break_glass,
        staged_event_id=policy.staged_event_id,
        scope_key=policy.scope_key,
        at=at,
    )


def _reply(_: str, reply: str) -> Reply:
    return Reply(status=200, body=_form(reply)) if reply else NO_POLICY


@lru_cache(maxsize=CACHED_FORMS)
def _form(reply: str) -> bytes:
    return cargowall.document(EffectivePolicy.from_reply(read_reply(reply))).encode()


_cache = FallbackCache(max_answers=MAX_CACHED_ANSWERS, max_bytes=MAX_CACHED_BYTES, reply_of=_reply)
clear_cache = _cache.clear
