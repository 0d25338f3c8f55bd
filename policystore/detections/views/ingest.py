"""Telemetry: single events as the agent posts them, and batches."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from django.http import HttpRequest

from policystore import metrics
from policystore.detections import reports
from policystore.detections.actions import detections
from policystore.detections.senders import sending_job
from policystore.runners.fetch import canonical_owner
from policystore.runners.http import Refused, parse_json, read_body, refuse, route
from policystore.runners.models import JobRun
from policystore.runners.replies import Reply, json_reply
from policystore.traffic import observations

MAX_EVENTS = 1000
MAX_UNPACKED_BYTES = 16 * 1024 * 1024
SHOWN_REASONS = 20

Done = TypeVar("Done")
Told = TypeVar("Told")


class _Sender:
    """The job that sends; found before the body is read, so that nobody else's is. Raises Refused."""

    def __init__(self, request: HttpRequest, owner: str, repository: str, correlation_id: str) -> None:
        self._find = partial(sending_job, request, canonical_owner(owner), repository, correlation_id)
        self._run = self._find()

    def keep(self, keep: Callable[[JobRun], Done]) -> Done:
        """What `keep` does with the job's row; with the one that is found now, where the job turned out at this moment
        to be that of another row. Raises Refused."""
        try:
            return keep(self._run)
        except JobRun.DoesNotExist:
            run = self._find()
        try:
            return keep(run)
        except JobRun.DoesNotExist as error:
            raise refuse(503, "job_run_moved", "The job became known at this moment; send the events again.") from error


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
    """Up to 1,000 events as a JSON array, gzip or not; the good ones are kept, the others counted and told."""
    sender = _Sender(request, owner, repository, correlation_id)
    return _take_in(sender, _array(request))


@route("POST")
def report(request: HttpRequest, owner: str, repository: str, correlation_id: str) -> Reply:
    """Up to 1,000 detections as a JSON array, gzip or not."""
    sender = _Sender(request, owner, repository, correlation_id)
    read, malformed = _read_each(_array(request), reports.read)
    stored = sender.keep(lambda run: detections.report(run=run, reports=read))
    return _told(stored, len(read) - stored, malformed)


def _array(request: HttpRequest) -> list[Any]:
    values = parse_json(unpacked(request))
    if not isinstance(values, list):
        raise refuse(400, "invalid_json", "The body is not a JSON array; put brackets around the events.")
    if len(values) > MAX_EVENTS:
        raise refuse(413, "too_many_events", f"The body has {len(values)} events; send at most {MAX_EVENTS} at once.")
    return values


def unpacked(request: HttpRequest) -> bytes:
    """The body, out of its gzip where it says so. Raises Refused."""
    body = read_body(request)
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise refuse(415, "unsupported_encoding", "The body's encoding is not known; send it plain or as gzip.")
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise refuse(400, "invalid_gzip", "The body is no gzip.") from error
    if unpacker.unconsumed_tail:
        raise refuse(413, "body_too_large", "The body is larger than 16 MiB when unpacked; send less at once.")
    if not unpacker.eof:
        raise refuse(400, "invalid_gzip", "The body's gzip ends too early.")
    return text


def _single(request: HttpRequest, kind: str, owner: str, repository: str, correlation_id: str) -> Reply:
    sender = _Sender(request, owner, repository, correlation_id)
    try:
        value = parse_json(read_body(request))
    except Refused as refused:
        # Another status than 200 makes the agent send the event again, with an empty body, and that again.
        told = json.loads(refused.reply.body)["message"]
        return _told(0, 0, [{"index": 0, "message": told}])
    return _take_in(sender, [value], kind=kind)


def _take_in(sender: _Sender, values: list[Any], *, kind: str | None = None) -> Reply:
    """Always 200, whatever is in the events."""
    read, malformed = _read_each(values, observations.read_any if kind is None else partial(observations.read, kind))
    taken = sender.keep(lambda run: detections.observe(run=run, observations=read))
    metrics.count_ingest(stored=taken.stored, repeated=taken.repeated, malformed=len(malformed))
    return _told(taken.stored, taken.repeated, malformed)


def _read_each(values: list[Any], read: Callable[[Any], Told]) -> tuple[list[Told], list[dict[str, object]]]:
    """What can be read, and for each of the others its place and what is wrong with it."""
    good: list[Told] = []
    malformed: list[dict[str, object]] = []
    for number, value in enumerate(values):
        try:
            good.append(read(value))
        except observations.Malformed as error:
            malformed.append({"index": number, "message": str(error)})
    return good, malformed


def _told(stored: int, repeated: int, malformed: list[dict[str, object]]) -> Reply:
    return json_reply(
        {
            "stored": stored,
            "repeated": repeated,
            "malformed": len(malformed),
            "problems": malformed[:SHOWN_REASONS],
        }
    )
