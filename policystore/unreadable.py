"""What gunicorn cannot read as HTTP, answered as the store answers: JSON for programs, a sentence for others.

The statuses are gunicorn's own, but for the version of HTTP, which has a status of its own (RFC 9110, 15.6.6). What the
client sent is not repeated, neither to it nor in the log: a header that is malformed may be the one that holds a key.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from django.conf import settings
from gunicorn.http import errors

from policystore.front_door import Application, FrontDoor, StartResponse
from policystore.runners.replies import Reply, refusal

logger = logging.getLogger(__name__)

# Method and path of a first line, however malformed the rest of it is.
_FIRST_LINE = re.compile(rb"([!-~]+)[ \t]+(?:https?://[^/\s]*)?(/[^\s?]*)[\s?]")
_IS_VERSION = re.compile(r"HTTP/\d+(\.\d+)?|\(\d+, \d+\)")
# Where the path cannot be told, it is as if a program had asked: people have browsers, which send what can be read.
_NO_PATH = "/v1"


class Fault(NamedTuple):
    """The answer to one kind of mistake: a status, a stable code, and what is wrong with the request."""

    status: int
    code: str
    message: str


MALFORMED = Fault(400, "malformed_request", "The request is not HTTP as RFC 9112 has it.")
_FIRST = Fault(400, "malformed_request_line", "The first line of the request is not a method, an address and HTTP/1.1.")
_CHUNKS = Fault(400, "malformed_chunks", "The body is not in chunks as Transfer-Encoding says; send it again.")
_HEADER = Fault(400, "malformed_header", "A header of the request is malformed, or there twice where it may be once.")
FAULTS: dict[type[Exception], Fault] = {
    errors.InvalidRequestLine: _FIRST,
    errors.InvalidRequestMethod: Fault(400, "malformed_method", "The method of the request is none of HTTP's."),
    errors.InvalidHTTPVersion: Fault(505, "unsupported_http_version", "The store speaks HTTP/1.1 and HTTP/1.0."),
    errors.LimitRequestLine: Fault(
        414, "address_too_long", "The first line of the request has more than 8,190 bytes; shorten the address."
    ),
    errors.LimitRequestHeaders: Fault(
        431, "headers_too_large", "The request has more than 100 headers, or one of more than 8,190 bytes."
    ),
    errors.InvalidHeader: _HEADER,
    errors.InvalidHeaderName: _HEADER,
    errors.ObsoleteFolding: Fault(400, "malformed_header", "A header goes on in a second line; write it in one."),
    errors.UnsupportedTransferCoding: Fault(
        501, "unsupported_transfer_coding", "The body is encoded in a way that the store cannot read; send it plain."
    ),
    errors.ExpectationFailed: Fault(417, "expectation_failed", "The store meets no expectation but 100-continue."),
    errors.InvalidChunkSize: _CHUNKS,
    errors.InvalidChunkExtension: _CHUNKS,
    errors.ChunkMissingTerminator: _CHUNKS,
    errors.NoMoreData: Fault(400, "unreadable_body", "The body ended too early; send it again."),
}
# The application's mistakes, though they are of the same family.
_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem)


def fault_of(error: BaseException) -> Fault | None:
    """What is wrong with a request that gunicorn has refused; None where it is not the client's fault."""
    if isinstance(error, _OURS) or not isinstance(error, errors.ParseException | errors.NoMoreData):
        return None
    # A space within an address seems to gunicorn to be what the version begins behind.
    if isinstance(error, errors.InvalidHTTPVersion) and not _IS_VERSION.fullmatch(str(error.version)):
        return _FIRST
    return next((FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS), MALFORMED)


def environ_of(received: bytes) -> dict[str, Any]:
    """What can be told of a request by its first bytes, as WSGI has it."""
    found = _FIRST_LINE.match(received)
    method, path = (part.decode("latin-1") for part in found.groups()) if found else ("", _NO_PATH)
    return {"REQUEST_METHOD": method, "PATH_INFO": path}


def application(error: BaseException) -> Application:
    """Answers a request that gunicorn gave up with this error, counts it and leaves its line in the log."""

    def fail(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        # What ends a process is no reason to end it here; gunicorn does so once the client is told.
        raise error if isinstance(error, Exception) else RuntimeError("The process ended meanwhile") from error

    return FrontDoor(Guarded(fail), log=settings.ACCESS_LOG)


class Guarded:
    """A WSGI application around one that may come upon what gunicorn cannot read, such as a body in bad chunks."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        try:
            return self._application(environ, start_response)
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            logger.warning("A request could not be read: %s", fault.code)
            reply = reply_of(fault, environ["PATH_INFO"])
        headers = [("Content-Type", reply.content_type), ("Content-Length", str(len(reply.body)))]
        start_response(f"{reply.status} {HTTPStatus(reply.status).phrase}", [*headers, ("Cache-Control", "no-store")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [reply.body]


def reply_of(fault: Fault, path: str) -> Reply:
    """JSON below /v1, the sentence alone elsewhere."""
    if path == "/v1" or path.startswith("/v1/"):
        return refusal(*fault)
    return Reply(fault.status, f"{fault.message}\n".encode(), content_type="text/plain; charset=utf-8")
