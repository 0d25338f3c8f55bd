"""The runner protocol: the routes that the action, the job hooks and the agent ask.

All but the policy fetch are open to callers without a key, so they reveal nothing beyond what the protocol needs, and
each call is rate limited.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import time
import urllib.request
from datetime import timedelta
from http.client import HTTPException
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest
from django.utils import timezone

from policystore.accounts import api_keys
from policystore.accounts.api_keys import live_key
from policystore.inventory.models import Organization
from policystore.runners import blocklist, job_runs, queries
from policystore.runners.clusters import cluster_of
from policystore.runners.fetch import cargowall, handler
from policystore.runners.fetch.fallback_cache import FallbackCache
from policystore.runners.fetch.handler import FetchRequest, canonical_owner, policy_served_to
from policystore.runners.models import JobRun
from policystore.runners.rate_limit import ProcessRateLimit
from policystore.web.json_api import (
    Reply,
    client_address,
    client_network,
    json_object,
    json_reply,
    refusal,
    refuse,
    route,
    storable,
)

logger = logging.getLogger(__name__)

_RUN_ID = re.compile(r"[0-9]{1,20}")
KEY_PREFIX = "ps_otk_"
# The body has two names, and the process that reads it answers fetches.
MAX_MONITOR_BYTES = 16 * 1024
# The hook asks during the first ten seconds of its job.
APPLIED_FOR = timedelta(minutes=1)
RELEASE_IS_FRESH_SECONDS = 5 * 60
# A request waits for the address while it holds one of the few slots for requests that Django answers.
RELEASE_PAUSE_SECONDS = 30
RELEASE_TIMEOUT_SECONDS = 2
MAX_RELEASE_BYTES = 512 * 1024
MAX_RELEASES = 1000
_RELEASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
TOO_MANY = refusal(
    429, "too_many_calls", "Too many calls from this address; wait a minute.", headers=(("Retry-After", "60"),)
)
# The hook takes a refusal for "no policy" and would not wait for its agent, so callers past the limit get the answer
# that makes a job wait. It says nothing about the organization.
CAUTIOUS = json_reply({"has_policy": True, "should_sleep": True})
RELEASE_UNAVAILABLE = refusal(
    503,
    "release_unavailable",
    "The address in AGENT_RELEASE_URL does not answer. Try again later.",
    headers=(("Retry-After", "30"),),
)
UNKNOWN_OWNER = refusal(403, "unknown_organization", "This store does not know the organization.")

_calls = ProcessRateLimit(settings.OPEN_CALLS_PER_MINUTE)
_misses = ProcessRateLimit(settings.OPEN_MISSES_PER_MINUTE)


def clear() -> None:
    """Drop all counts and cached answers."""
    _calls.clear()
    _misses.clear()
    _checks.clear()
    _releases.clear()
    _paused_until.clear()


@route("GET")
def root(request: HttpRequest) -> Reply:
    """Answer the job hooks' first request, which tests whether the store can be reached at all."""
    return json_reply({"name": "Policy Store", "description": "/v1/openapi.json"})


@route("GET")
def workflow_policy(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Return the most specific policy for a job, or 404; in production, `FetchFirst` answers this before Django."""
    return handler.answer(FetchRequest.parse(owner, repository, request.META))


@route("GET")
def cargowall_policy(request: HttpRequest) -> Reply:
    """Return the policy for a job of CargoWall, or 404; in production, `FetchFirst` answers this before Django."""
    return cargowall.answer(request.META)


@route("GET")
def workflow_check(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Tell the ARC hook, in two booleans, whether a policy applies and whether to wait for the agent to apply it."""
    owner = canonical_owner(owner)
    cluster = storable(cluster_of(request.META, request.GET.get("cluster", "")))
    job = (owner, repository, storable(request.GET.get("workflow", "")), cluster)
    if not _calls.allows(f"check {owner} {client_network(request)}"):
        return CAUTIOUS
    try:
        policy = policy_served_to(*job)
    except DatabaseError as error:
        logger.error("The database is unavailable (%s); serving the last good answers", error)
        return _checks.reply(job)
    # Neither endpoints nor exceptions change this answer.
    _checks.keep(job, policy.stored._replace(reply="{}", open_exceptions=""))
    return _check_reply(policy.egress_policy)


def _check_reply(egress_policy: str, _: str = "") -> Reply:
    return json_reply({"has_policy": egress_policy != "", "should_sleep": egress_policy == "block"})


_checks = FallbackCache(max_answers=20_000, max_bytes=8 * 1024 * 1024, reply_of=_check_reply)


@route("GET")
def policy_status(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Return whether the agent has fetched this job's policy; an unknown job counts as one that did not."""
    owner = canonical_owner(owner)
    correlation_id = storable(request.GET.get("correlation_id") or request.GET.get("correlationId", ""))
    run = known_run(request, owner, repository, correlation_id)
    return json_reply({"status": "APPLIED" if run is not None and _just_applied(run) else "NOT_APPLIED"})


@route("POST")
def monitor(request: HttpRequest, owner: str, repository: str, run_id: str) -> Reply:
    """Register a job of a run and return the key that its telemetry carries; asking again returns the same key."""
    owner = canonical_owner(owner)
    body = json_object(request, max_bytes=MAX_MONITOR_BYTES)
    correlation_id, job = _text(body, "correlation_id"), _text(body, "job")
    if not correlation_id:
        raise refuse(400, "missing_field", "The body has no correlation_id; send it as a string.")
    if cargowall.is_correlation_id(correlation_id):
        raise refuse(400, "invalid_field", "This correlation_id belongs to a job of CargoWall, which reports by token.")
    if not _RUN_ID.fullmatch(run_id):
        raise refuse(400, "invalid_run_id", "The run's id is not a number.")
    if not _calls.allows(f"monitor {owner} {client_network(request)}"):
        return TOO_MANY
    organization = Organization.objects.filter(key=owner).first()
    if organization is None:
        return UNKNOWN_OWNER
    job_runs.register(
        organization=organization,
        repository=repository,
        run_id=run_id,
        correlation_id=correlation_id,
        job=job,
        cluster=cluster_of(request.META),
        at=timezone.now(),
    )
    return json_reply(
        {
            "runner_ip_address": client_address(request),
            "one_time_key": one_time_key(owner, repository, correlation_id, run_id),
            "monitoring_started": True,
        }
    )


@route("GET")
def tls_inspection_status(request: HttpRequest, owner: str) -> Reply:
    """Never answer 200, which would make the action install the vendor's own agent instead of the open-source one."""
    return refusal(403, "no_tls_inspection", "This store works with the open-source agent, without TLS inspection.")


@route("GET")
def subscription(request: HttpRequest, owner: str, repository: str) -> Reply:
    """Allow block mode for every repository; 403 would force the agent of a private one into audit."""
    return json_reply({"subscribed": True})


@route("GET")
def feature_flags(request: HttpRequest) -> Reply:
    """Return which features agents may switch on; both need services that this store does not have."""
    agent_type = storable(request.GET.get("agent_type", ""))[:100]
    return json_reply({"agent_type": agent_type, "enable_armour": False, "enable_custom_detection_rules": False})


@route("GET")
def global_blocklist(request: HttpRequest) -> Reply:
    """Return the blocklist of the key's organization, and what is blocked in every organization.

    The path names no organization, so a caller without a key gets the store-wide entries only; in a store with a single
    organization, the list of that one, too.
    """
    _, sent_key = api_keys.parse_authorization(request.headers.get("Authorization", ""))
    if not sent_key:
        return json_reply(blocklist.agent_blocklist(blocklist.sole_organization()))
    key = live_key(sent_key)
    if key is None:
        raise refuse(401, "unauthorized", "The API key is unknown or revoked. Send a valid one, or no Authorization.")
    return json_reply(blocklist.agent_blocklist(key.organization))


# By address, platform and version: the JSON of a release, and when it was looked up.
_releases: dict[tuple[str, str, str], tuple[bytes, float]] = {}
# Until when a release is not looked up again after a failure. Anyone can ask for a release that does not exist, so
# failures must not push releases out of the cache.
_paused_until: dict[tuple[str, str, str], float] = {}


@route("GET")
def agent_release(request: HttpRequest, platform: str, version: str) -> Reply:
    """Return a release of the agent for the job hooks: JSON with `tag` and `assets`.

    The hooks do not follow redirects, so the store looks the release up at the address that the operator configured
    (404 without one), and passes the answer on. The last good answer is kept as a fallback.
    """
    base = settings.AGENT_RELEASE_URL.rstrip("/")
    if not base or not (_RELEASE_NAME.fullmatch(platform) and _RELEASE_NAME.fullmatch(version)):
        return refusal(404, "no_release", "There is no such release; the operator sets AGENT_RELEASE_URL.")
    key = (base, platform, version)
    body, looked_up_at = _releases.get(key, (None, 0.0))
    now = time.monotonic()
    is_fresh = body is not None and now - looked_up_at < RELEASE_IS_FRESH_SECONDS
    if not is_fresh and now >= _paused_until.get(key, now):
        body = _look_up_release(key) or body
    return RELEASE_UNAVAILABLE if body is None else Reply(status=200, body=body)


def _look_up_release(key: tuple[str, str, str]) -> bytes | None:
    """Fetch a release and cache it; None after a failure."""
    base, platform, version = key
    try:
        body = _fetch_release(f"{base}/{platform}/single/releases/{version}")
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        logger.warning("The agent's release could not be looked up: %s", error)
        _make_room(_paused_until)
        _paused_until[key] = time.monotonic() + RELEASE_PAUSE_SECONDS
        return None
    _make_room(_releases)
    _releases[key] = (body, time.monotonic())
    return body


def _make_room(cache: dict[tuple[str, str, str], Any]) -> None:
    if len(cache) > MAX_RELEASES:
        cache.clear()


def _fetch_release(address: str) -> bytes:
    # The address is the operator's own setting; the settings accept only HTTP and HTTPS addresses.
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=RELEASE_TIMEOUT_SECONDS) as response:  # noqa: S310
        body: bytes = response.read(MAX_RELEASE_BYTES)
    release = json.loads(body)
    if not isinstance(release, dict) or not release.get("tag") or not isinstance(release.get("assets"), list):
        raise ValueError("the answer has no tag or no assets")
    return body


def one_time_key(owner: str, repository: str, correlation_id: str, run_id: str) -> str:
    """Return the key that a job's telemetry carries: `ps_otk_RUNID_` and 43 characters.

    The case of owner and repository does not matter. The key is derived, not stored, so that the same job always gets
    the same key. It names the run as well as the correlation id: a runner that takes one job after another keeps its
    correlation id, and an event that arrives late must be counted for the job that it was sent for.
    """
    identity = "\0".join(("one-time-key", owner.lower(), repository.lower(), correlation_id, run_id))
    digest = hmac.new(settings.API_KEY_SECRET.encode(), identity.encode(), hashlib.sha256).digest()
    return f"{KEY_PREFIX}{run_id}_{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def run_id_of(key: str, owner: str, repository: str, correlation_id: str) -> str | None:
    """Return the id of the run that a key belongs to, or None if it is not the key of such a job."""
    run_id = key.removeprefix(KEY_PREFIX).partition("_")[0]
    expected = one_time_key(owner, repository, correlation_id, run_id)
    return run_id if hmac.compare_digest(key.encode(), expected.encode()) else None


def known_run(
    request: HttpRequest, owner: str, repository: str, correlation_id: str, run_id: str | None = None
) -> JobRun | None:
    """Return the job run, or None. Raises Refused with 429 if the client asks for too many unknown jobs.

    The limit is per network of clients, so that no client can use up what others need.
    """
    run = queries.known_job_run(owner, repository, correlation_id, run_id)
    if run is None and not _misses.allows(f"{owner} {client_network(request)}"):
        raise refuse(429, "too_many_calls", "Too many calls for jobs that this store has not seen; wait a minute.")
    return run


def _just_applied(run: JobRun) -> bool:
    # The correlation id is a runner's name, which its next job shares; that job must wait for a fetch of its own.
    oldest = timezone.now() - APPLIED_FOR
    return run.policy_id is not None and run.fetched_at is not None and run.fetched_at > oldest


def _text(body: dict[str, object], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise refuse(400, "invalid_field", f"{name} must be a string.")
    if len(value) > 255:
        raise refuse(400, "invalid_field", f"{name} has more than 255 characters.")
    return storable(value)
