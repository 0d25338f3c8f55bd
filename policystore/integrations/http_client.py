"""Sends one HTTP request to a URL that a person entered: checked, limited in time and size, never redirected."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from policystore.integrations import url_guard
from policystore.integrations.url_guard import AddressRefused, Checked

# One request ends after so long, whatever the receiver does: well within the time that a worker has to stop.
SECONDS = 10.0
MAX_BYTES = 64 * 1024
CHUNK = 16 * 1024


class NotSent(Exception):
    """No answer came; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A receiver's answer: names of headers in lower case, and of the body what came in time, up to MAX_BYTES."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _WholeLines(io.BufferedReader):
    """A stream whose lines have their ends: headers that were cut off would else look as if they had ended."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and (size is None or size < 0 or len(line) < size):
            raise http.client.IncompleteRead(line)
        return line


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self.fp.close()
        self.fp = _WholeLines(sock.makefile("rb", buffering=0))


def send(method: str, url: str, *, headers: Mapping[str, str], body: bytes, seconds: float = SECONDS) -> Reply:
    """Send a request and return the answer, of any status. Raises NotSent."""
    deadline = time.monotonic() + seconds
    try:
        checked = url_guard.look_up(url, seconds=seconds)
        return _exchange(checked, method, headers, body, deadline)
    except AddressRefused as refusal:
        raise NotSent(str(refusal)) from refusal
    except ssl.SSLCertVerificationError as error:
        raise NotSent(f"The receiver's certificate is not trusted: {error.verify_message}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline or isinstance(error, TimeoutError):
            raise NotSent(f"The receiver did not answer within {seconds:g} seconds.") from error
        raise NotSent(f"The receiver could not be reached or understood: {error or type(error).__name__}.") from error


def _exchange(checked: Checked, method: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Reply:
    with closing(_connect(checked, deadline)) as sock, _ends_at(sock, deadline):
        parts = checked.parts
        usual = http.client.HTTPS_PORT if parts.scheme == "https" else http.client.HTTP_PORT
        connection = http.client.HTTPConnection(parts.host, parts.port)
        # So that the Host header leaves the usual port out. The socket is there already, checked and encrypted.
        connection.default_port = usual
        connection.auto_open = 0
        connection.response_class = _Response
        connection.sock = sock
        connection.request(method, parts.target, body=body, headers={"Connection": "close", **headers})
        with closing(connection.getresponse()) as response:
            values = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, values, _read(response))


def _read(response: http.client.HTTPResponse) -> bytes:
    """The body as far as it comes: the status has been said, so what is wrong with the rest matters no more."""
    body = b""
    with suppress(OSError, http.client.HTTPException, ValueError):
        while len(body) < MAX_BYTES and (piece := response.read1(min(CHUNK, MAX_BYTES - len(body)))):
            body += piece
    return body


def _connect(checked: Checked, deadline: float) -> socket.socket:
    """A socket to one of the checked IP addresses; TLS is verified for the name that was written."""
    error: OSError | None = None
    for ip in checked.ips:
        try:
            raw = socket.create_connection((ip, checked.parts.port), timeout=_left(deadline))
        except OSError as failure:
            error = failure
            continue
        if checked.parts.scheme != "https":
            return raw
        try:
            return ssl.create_default_context().wrap_socket(raw, server_hostname=checked.parts.host)
        except BaseException:
            raw.close()
            raise
    raise error or OSError("no address")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextmanager
def _ends_at(sock: socket.socket, deadline: float) -> Iterator[None]:
    """Cut the connection at the deadline: a socket's own timeout restarts with each byte that arrives."""

    def cut() -> None:
        with suppress(OSError):
            # Past TLS, whose own shutdown another thread must not touch.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
