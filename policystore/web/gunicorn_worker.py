"""gunicorn's threaded worker: idle connections cost no thread, and what is not HTTP gets JSON like every other error.

The statuses are gunicorn's own, except that no mistake of a client gets one above 499. What the client sent is not
repeated, neither to it nor in the log: a malformed header may be the one that holds a key.
"""

from __future__ import annotations

import logging
import re
import selectors
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker

from policystore.web.json_api import INTERNAL_ERROR, Reply, refusal
from policystore.web.request_log import StartResponse

logger = logging.getLogger(__name__)


_IS_VERSION = re.compile(r"HTTP/\d+(\.\d+)?|\(\d+, \d+\)")


class Fault(NamedTuple):
    """The answer to one kind of mistake: a status, a stable code, and what is wrong with the request."""

    status: int
    code: str
    message: str


MALFORMED = Fault(400, "malformed_request", "The request is not valid HTTP/1.1 (RFC 9112).")
_FIRST = Fault(400, "malformed_request_line", "The first line of the request is not a method, an address and HTTP/1.1.")
_CHUNKS = Fault(400, "malformed_chunks", "The body is not in valid chunks, as Transfer-Encoding says. Send it again.")
_HEADER = Fault(400, "malformed_header", "A header of the request is malformed, or repeated although it may not be.")
FAULTS: dict[type[Exception], Fault] = {
    errors.InvalidRequestLine: _FIRST,
    errors.InvalidRequestMethod: Fault(400, "malformed_method", "The request has no valid HTTP method."),
    errors.InvalidHTTPVersion: Fault(400, "unsupported_http_version", "The store supports HTTP/1.1 and HTTP/1.0."),
    errors.LimitRequestLine: Fault(
        414, "address_too_long", "The first line of the request has more than 8,190 bytes; shorten the address."
    ),
    errors.LimitRequestHeaders: Fault(
        431, "headers_too_large", "The request has more than 100 headers, or one of more than 8,190 bytes."
    ),
    errors.InvalidHeader: _HEADER,
    errors.InvalidHeaderName: _HEADER,
    errors.ObsoleteFolding: Fault(400, "malformed_header", "A header continues on a second line. Send it on one line."),
    errors.UnsupportedTransferCoding: Fault(
        400, "unsupported_transfer_coding", "The Transfer-Encoding is not supported. Send the body plain or in chunks."
    ),
    errors.ExpectationFailed: Fault(417, "expectation_failed", "The store supports only Expect: 100-continue."),
    errors.InvalidChunkSize: _CHUNKS,
    errors.InvalidChunkExtension: _CHUNKS,
    errors.ChunkMissingTerminator: _CHUNKS,
    errors.NoMoreData: Fault(400, "unreadable_body", "The body ended too early; send it again."),
}
# Mistakes of the application, whose errors have the same base class.
_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem)


def fault_of(error: BaseException) -> Fault | None:
    """Return what is wrong with a request that gunicorn refused; None if it is not the client's fault."""
    if isinstance(error, _OURS) or not isinstance(error, errors.ParseException | errors.NoMoreData):
        return None
    # gunicorn takes what follows a space in the address for the version.
    if isinstance(error, errors.InvalidHTTPVersion) and not _IS_VERSION.fullmatch(str(error.version)):
        return _FIRST
    return next((FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS), MALFORMED)


class Guarded:
    """Wraps a WSGI application that may read what gunicorn cannot parse, such as a body in malformed chunks."""

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
        reply = refusal(*fault)
        headers = [("Content-Type", reply.content_type), ("Content-Length", str(len(reply.body)))]
        start_response(_status(reply), [*headers, ("Cache-Control", "no-store")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [reply.body]


def response_to(error: BaseException) -> bytes:
    """The whole HTTP response to a request that gunicorn gave up with this error."""
    fault = fault_of(error)
    reply = refusal(*fault) if fault else INTERNAL_ERROR
    if fault:
        logger.warning("A request could not be read: %s", fault.code)
    else:
        logger.error("A request failed outside of the application", exc_info=error)
    head = f"HTTP/1.1 {_status(reply)}\r\nContent-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n"
    return f"{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + reply.body


def _status(reply: Reply) -> str:
    return f"{reply.status} {HTTPStatus(reply.status).phrase}"


# A new connection that sends nothing for so long is closed.
IDLE_SECONDS = 10.0
# A worker that is stopping closes it after this time.
STOP_SECONDS = 1.0


class WebWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn is not typed
    """Serves the web process."""

    def enqueue_req(self, conn: Any) -> None:
        """Give the connection to a thread once its client has sent something; in gunicorn, the thread would wait."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + IDLE_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def murder_pending(self) -> None:
        """Close connections that sent nothing for too long."""
        if not self.alive:
            soon = time.monotonic() + STOP_SECONDS
            for connection in self.pending_conns:
                connection.timeout = min(connection.timeout, soon)
        super().murder_pending()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Reply as JSON. gunicorn would repeat the header that is malformed, also in its log, with the key in it."""
        with suppress(OSError):
            client.sendall(response_to(exc))
