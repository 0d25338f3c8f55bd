"""Telemetry: single events as the agent posts them, and batches.

A request is authenticated, then counted against its budgets, and only then read. Reading it stops at the size, depth
and number of events that are allowed, before anything is made of them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from django.http import HttpRequest

from policystore.detections import reports, telemetry_auth, telemetry_limits
from policystore.detections.actions import detections
from policystore.detections.telemetry_limits import BATCHES, MAX_EVENTS, MAX_UNPACKED_BYTES, POSTS, Rate
from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.models import JobRun
from policystore.traffic import event_parser
from policystore.web import metrics
from policystore.web.json_api import Refused, client_network, parse_json, read_body, refuse, route
from policystore.web.responses import Reply, json_reply

SHOWN_REASONS = 20

Done = TypeVar("Done")
Parsed = TypeVar("Parsed")


class _Job:
    """The job that sends, authenticated and within its budgets. Raises Refused."""

    def __init__(self, request: HttpRequest, owner: str, repository: str, correlation_id: str, rate: Rate) -> None:
        self._find = partial(telemetry_auth.sending_job, request, canonical_owner(owner), repository, correlation_id)
        self._run = self._find()
        telemetry_limits.spend(rate, self._run, client_network(request))

    def keep(self, keep: Callable[[JobRun], Done], *, count: int) -> Done:
        """What `keep`, which stores `count` events or reports, returns for the job's row, or for the row that its
        events have moved to. Raises Refused."""
        telemetry_limits.spend_unverified(self._run, count)
        try:
            return keep(self._run)
        except JobRun.DoesNotExist:
            run = self._find()
        try:
            return keep(run)
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
    """Up to 1,000 events as a JSON array, gzip or not; valid ones are stored, the others counted and listed."""
    job = _Job(request, owner, repository, correlation_id, BATCHES)
    return _take_in(job, _array(request))


@route("POST")
def report(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> Reply:
    """Up to 1,000 detections as a JSON array, gzip or not."""
    job = _Job(request, owner, repository, correlation_id, BATCHES)
    parsed, malformed = _parse_each(_array(request), reports.read)
    stored = job.keep(lambda run: detections.report(run=run, reports=parsed), count=len(parsed))
    return _outcome(stored, len(parsed) - stored, malformed)


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
        # Another status than 200 makes the agent send the event again, with an empty body, and that again.
        message = json.loads(refused.reply.body)["message"]
        return _outcome(0, 0, [{"index": 0, "message": message}])
    return _take_in(job, [value], kind=kind)


def _take_in(job: _Job, values: list[Any], *, kind: str | None = None) -> Reply:
    """Always 200, whatever is in the events."""
    parse = event_parser.read_any if kind is None else partial(event_parser.read, kind)
    parsed, malformed = _parse_each(values, parse)
    taken = job.keep(lambda run: detections.observe(run=run, observations=parsed), count=len(parsed))
    metrics.count_ingest(stored=taken.stored, repeated=taken.repeated, malformed=len(malformed))
    return _outcome(taken.stored, taken.repeated, malformed)


def _parse_each(values: list[Any], parse: Callable[[Any], Parsed]) -> tuple[list[Parsed], list[dict[str, object]]]:
    """The valid values, and for each of the others its index and what is wrong with it."""
    good: list[Parsed] = []
    malformed: list[dict[str, object]] = []
    for number, value in enumerate(values):
        try:
            good.append(parse(value))
        except event_parser.Malformed as error:
            malformed.append({"index": number, "message": str(error)})
    return good, malformed


def _outcome(stored: int, repeated: int, malformed: list[dict[str, object]]) -> Reply:
    return json_reply(
        {
            "stored": stored,
            "repeated": repeated,
            "malformed": len(malformed),
            "problems": malformed[:SHOWN_REASONS],
        }
    )
