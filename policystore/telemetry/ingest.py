"""Ingest of telemetry: single events as the agent posts them, and batches.

A request is authenticated, then counted against its rate limits, and only then read. Reading stops at the allowed size,
depth and number of events, before any event is processed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from django.http import HttpRequest

from policystore.detections import actions, reports
from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.models import JobRun
from policystore.telemetry import auth, limits
from policystore.telemetry.limits import BATCHES, MAX_EVENTS, MAX_UNPACKED_BYTES, POSTS, Rate
from policystore.traffic import event_parser
from policystore.web import metrics
from policystore.web.json_api import Refused, client_network, parse_json, read_body, refuse, route
from policystore.web.responses import Reply, json_reply

PROBLEMS_SHOWN = 20

Result = TypeVar("Result")
Parsed = TypeVar("Parsed")


class _Job:
    """The job that sends telemetry, authenticated and within its rate limits. Raises Refused."""

    def __init__(self, request: HttpRequest, owner: str, repository: str, correlation_id: str, rate: Rate) -> None:
        self._find = partial(auth.sending_job, request, canonical_owner(owner), repository, correlation_id)
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
    parsed, malformed = _parse_each(_array(request), reports.parse)
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
