"""Ingest of telemetry: single events as the agent posts them, and batches.

A job's agent sends its one-time key, a system an API key. A request is authenticated, then counted against its rate
limits, and only then read. Reading stops at the allowed size, depth and number of events, before any event is
processed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from django.http import HttpRequest
from django.utils import timezone

from policystore.accounts import api_keys
from policystore.accounts.api_keys import live_key
from policystore.detections import actions
from policystore.runners import job_runs, queries
from policystore.runners.clusters import cluster_of, require_cluster
from policystore.runners.fetch import recorder
from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.models import JobRun, Verification
from policystore.runners.protocol import run_id_of
from policystore.telemetry import limits
from policystore.telemetry.limits import BATCHES, MAX_EVENTS, MAX_UNPACKED_BYTES, POSTS, Rate
from policystore.traffic import event_parser
from policystore.web import metrics
from policystore.web.json_api import Refused, Reply, client_network, json_reply, parse_json, read_body, refuse, route

PROBLEMS_SHOWN = 20

Result = TypeVar("Result")
Parsed = TypeVar("Parsed")


class _Job:
    """The job that sends telemetry, authenticated and within its rate limits. Raises Refused."""

    def __init__(self, request: HttpRequest, owner: str, repository: str, correlation_id: str, rate: Rate) -> None:
        self._find = partial(_sending_job, request, canonical_owner(owner), repository, correlation_id)
        self._run = self._find()
        limits.spend(rate, self._run, client_network(request))

    def store(self, store: Callable[[JobRun], Result], *, count: int) -> Result:
        """Call `store`, which stores `count` events or reports, for the job's row and return its result.

        If the job's events have meanwhile moved to another row, it is called for that one. Raises Refused.
        """
        limits.spend_unverified(self._run, count)
        try:
            return store(self._run)
        except JobRun.DoesNotExist:
            run = self._find()
        try:
            return store(run)
        except JobRun.DoesNotExist as error:
            raise refuse(503, "job_run_moved", "The job was just identified. Send the events again.") from error


@route("POST")
def dns(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> Reply:
    """One DNS answer."""
    return _single(request, "dns", owner, repository, correlation_id)


@route("POST")
def network_connection(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> Reply:
    """One connection."""
    return _single(request, "networkconnection", owner, repository, correlation_id)


@route("POST")
def batch(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> Reply:
    """Up to 1,000 events as a JSON array, optionally gzip. Valid ones are stored, the others counted and listed."""
    job = _Job(request, owner, repository, correlation_id, BATCHES)
    return _ingest(job, _array(request))


@route("POST")
def report(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> Reply:
    """Up to 1,000 detections as a JSON array, optionally gzip."""
    job = _Job(request, owner, repository, correlation_id, BATCHES)
    parsed, malformed = _parse_each(_array(request), actions.parse_report)
    stored = job.store(lambda run: actions.report(run=run, reports=parsed), count=len(parsed))
    return _reply(stored, len(parsed) - stored, malformed)


def _array(request: HttpRequest) -> list[Any]:
    values = parse_json(unpacked(request), max_items=MAX_EVENTS)
    if not isinstance(values, list):
        raise refuse(400, "invalid_json", 'The body is not a JSON array. Send the events as [{"type": "dns", …}, …].')
    return values


def unpacked(request: HttpRequest) -> bytes:
    """The body, unpacked if it is gzip; unpacking stops at MAX_UNPACKED_BYTES. Raises Refused."""
    body = read_body(request)
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        message = f"Content-Encoding “{encoding[:40]}” is not supported. Send the body unencoded or as gzip."
        raise refuse(415, "unsupported_encoding", message)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise refuse(400, "invalid_gzip", "The body is not valid gzip.") from error
    if unpacker.unconsumed_tail or (len(text) == MAX_UNPACKED_BYTES and not unpacker.eof):
        message = "The body is larger than 4 MiB when unpacked. Split it into several requests."
        raise refuse(413, "body_too_large", message)
    if not unpacker.eof:
        raise refuse(400, "invalid_gzip", "The body's gzip data ends too early.")
    return text


def _single(request: HttpRequest, kind: str, owner: str, repository: str, correlation_id: str) -> Reply:
    job = _Job(request, owner, repository, correlation_id, POSTS)
    try:
        value = parse_json(read_body(request))
    except Refused as refused:
        # With any status but 200, the agent resends the event with an empty body, again and again.
        message = json.loads(refused.reply.body)["message"]
        return _reply(0, 0, [{"index": 0, "message": message}])
    return _ingest(job, [value], kind=kind)


def _ingest(job: _Job, values: list[Any], *, kind: str | None = None) -> Reply:
    """Parse and store events. The reply is always 200, whatever the events contain."""
    parse = event_parser.parse_typed if kind is None else partial(event_parser.parse, kind)
    parsed, malformed = _parse_each(values, parse)
    stored = job.store(lambda run: actions.observe(run=run, events=parsed), count=len(parsed))
    metrics.count_ingest(stored=stored.stored, repeated=stored.repeated, malformed=len(malformed))
    return _reply(stored.stored, stored.repeated, malformed)


def _parse_each(values: list[Any], parse: Callable[[Any], Parsed]) -> tuple[list[Parsed], list[dict[str, object]]]:
    """The valid values parsed, and the index and problem of each of the others."""
    valid: list[Parsed] = []
    malformed: list[dict[str, object]] = []
    for number, value in enumerate(values):
        try:
            valid.append(parse(value))
        except event_parser.Malformed as error:
            malformed.append({"index": number, "message": str(error)})
    return valid, malformed


def _reply(stored: int, repeated: int, malformed: list[dict[str, object]]) -> Reply:
    return json_reply(
        {
            "stored": stored,
            "repeated": repeated,
            "malformed": len(malformed),
            "problems": malformed[:PROBLEMS_SHOWN],
        }
    )


def _sending_job(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> JobRun:
    """The job run that the telemetry is about.

    Raises Refused: 401 for a missing or invalid key, 403 for one of another organization or limited to other clusters.
    An API key verifies the job. If the store has not seen it yet, it is added; `monitor` sends its run and job later.
    """
    one_time_key = request.headers.get("X-One-Time-Key", "")
    if not one_time_key:
        return _with_api_key(request, owner, repository, correlation_id)
    run_id = run_id_of(one_time_key, owner, repository, correlation_id)
    if run_id is None:
        raise _unauthorized()
    run = known_run(owner, repository, correlation_id, run_id)
    if run is None:
        raise refuse(403, "unknown_job_run", "The store does not know this job, or it began too long ago.")
    return run


def _with_api_key(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> JobRun:
    key = live_key(api_keys.parse_authorization(request.headers.get("Authorization", ""))[1])
    if key is None:
        raise _unauthorized()
    if key.organization.key != owner:
        raise refuse(403, "forbidden", "This API key belongs to another organization.")
    cluster = cluster_of(request.META)
    require_cluster(key, cluster)
    run = known_run(owner, repository, correlation_id)
    if run is not None:
        require_cluster(key, run.cluster)
        job_runs.verify(run=run, verified_by=Verification.SENDER)
        return run
    return job_runs.register(
        organization=key.organization,
        repository=repository,
        run_id="",
        correlation_id=correlation_id,
        job="",
        cluster=cluster,
        at=timezone.now(),
        verified_by=Verification.SENDER,
    )


def known_run(owner: str, repository: str, correlation_id: str, run_id: str | None = None) -> JobRun | None:
    """The latest job run with this correlation id, with its fetch even if that still waits in this process."""
    run = queries.known_job_run(owner, repository, correlation_id, run_id)
    if run is not None and run.fetched_at is not None:
        return run
    recorder.flush()
    return queries.known_job_run(owner, repository, correlation_id, run_id)


def _unauthorized() -> Refused:
    return refuse(401, "unauthorized", "Send the job's one-time key as X-One-Time-Key, or an API key.")
