"""gunicorn's sync worker with a short way for the one request that every job waits for.

A policy fetch as runners send it, whole in its first packet and with nothing unusual about it, is read and answered
here. Any other request is left to gunicorn, which reads it from its first byte on. Both come to the same application.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from gunicorn import SERVER, util
from gunicorn.workers.sync import SyncWorker

from policystore import access_log, unreadable

# As much as gunicorn reads at once; what is longer is not usual.
FIRST_BYTES = 8190
# Far more often than gunicorn's timeout asks for; each costs a system call.
SIGN_OF_LIFE_SECONDS = 1.0
# Elsewhere than on Linux, a connection does not block if its listener doesn't.
INHERITS_FLAGS = sys.platform != "linux"
# Names as GitHub has them, so no escapes; no fragment, no body, no line that is continued, no more
# headers than gunicorn takes, nothing but printable ASCII.
_REQUEST = re.compile(
    rb"GET (/v1/github/[\w.:-]+/[\w.-]+/actions/policies/workflow-policy)(?:\?([!\"$-~]*))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+:[ -~]*\r\n){1,100})\r\n"
)
_HEADER = re.compile(rb"([A-Za-z0-9-]+):([ -~]*)\r\n")
# None of these may be there twice.
_TOLD = {
    b"host": "HTTP_HOST",
    b"authorization": "HTTP_AUTHORIZATION",
    b"x-request-id": "HTTP_X_REQUEST_ID",
    b"content-type": "CONTENT_TYPE",
}
_UNUSUAL = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"script-name"))


class FetchWorker(SyncWorker):  # type: ignore[misc]  # gunicorn is not typed
    """Answers plain policy fetches itself, at half of what they cost otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told_at = 0.0
        self._received = b""
        # What gunicorn would do beside answering is then for it to do.
        cfg = self.cfg
        self._is_short = not (
            cfg.is_ssl or cfg.proxy_protocol != "off" or cfg.accesslog or cfg.statsd_host or "SCRIPT_NAME" in cfg.env
        )

    def notify(self) -> None:
        """Show the parent process that this one lives."""
        now = time.monotonic()
        if now - self._told_at >= SIGN_OF_LIFE_SECONDS:
            self._told_at = now
            super().notify()

    def run(self) -> None:
        """Answer requests, one after the other, until told to end."""
        access_log.hold_back()
        super().run()

    def wait(self, timeout: float) -> Any:
        """Wait until there is a connection; what was put off for want of time is done first."""
        access_log.write()
        return super().wait(timeout)

    def accept(self, listener: socket.socket) -> None:
        """Take the next connection, which Python itself keeps from programs that are started."""
        client, address = listener.accept()
        if INHERITS_FLAGS:
            client.setblocking(True)
        self.handle(listener, client, address)

    def handle(self, listener: Any, client: socket.socket, address: Any) -> None:
        """Answer one connection and close it."""
        if not self._is_short:
            self._handle_at_leisure(listener, client, address)
            return
        try:
            received = first_bytes(client)
        except OSError:
            client.close()
            return
        environ = environ_of(received)
        if environ is None:
            self._received = received
            self._handle_at_leisure(listener, client, address)
            return
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        try:
            client.sendall(answer(self.wsgi, environ))
        except OSError as error:
            self.log.debug("The client of a fetch is gone: %s", error)
        except Exception as error:
            self.handle_error(None, client, address, error)
        finally:
            close(client, expected=len(received))

    def _handle_at_leisure(self, listener: Any, client: socket.socket, address: Any) -> None:
        access_log.write()
        super().handle(listener, client, address)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer in the store's own form what never came to the application, or failed on the way to it."""
        try:
            client.sendall(answer(unreadable.application(exc), unreadable.environ_of(self._received)))
        except OSError as error:
            self.log.debug("Nobody is there to be told: %s", error)


def first_bytes(client: socket.socket) -> bytes:
    """What the client has sent, which stays where it is, so that gunicorn can still read all of it. Raises OSError."""
    try:
        return client.recv(FIRST_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        access_log.write()
        return client.recv(FIRST_BYTES, socket.MSG_PEEK)


def environ_of(received: bytes) -> dict[str, Any] | None:
    """What the application is asked by these bytes, or None where they are not one plain fetch and nothing else."""
    found = _REQUEST.fullmatch(received)
    if found is None:
        return None
    path, query, headers = found.groups()
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path.decode(), "QUERY_STRING": (query or b"").decode()}
    for name, value in _HEADER.findall(headers):
        name = name.lower()
        if name in _UNUSUAL:
            return None
        key = _TOLD.get(name)
        if key in environ:
            return None
        if key:
            environ[key] = value.strip().decode()
    return environ


def answer(application: Callable[..., Any], environ: dict[str, Any]) -> bytes:
    """The whole answer, as gunicorn's sync worker would write it."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        started[:] = status, headers

    body = b"".join(application(environ, start_response))
    status, headers = started
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return b"".join((f"HTTP/1.1 {status}\r\n{_of_server(int(time.time()))}{lines}\r\n".encode("latin-1"), body))


_written = (0, "")


def _of_server(now: int) -> str:
    global _written
    if _written[0] != now:
        date = formatdate(now, usegmt=True)
        _written = now, f"Server: {SERVER}\r\nDate: {date}\r\nConnection: close\r\n"
    return _written[1]


def close(client: socket.socket, *, expected: int) -> None:
    """Take what was peeked at and close; where the client has sent more, as gunicorn closes, which waits for it.

    A connection that is closed with something unread is reset, and the client may lose its answer.
    """
    try:
        is_all = len(client.recv(FIRST_BYTES, socket.MSG_DONTWAIT)) == expected
    except OSError:
        is_all = False
    if is_all:
        client.close()
    else:
        util.close_graceful(client)
