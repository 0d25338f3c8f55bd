"""Sends one HTTP request to a URL that a person entered: checked, limited in time and size, never redirected.

Owners of an organization choose the addresses, so an unchecked one would let them reach the store's own network. To
prevent server-side request forgery, each send resolves the URL, checks it, and connects to what it checked.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

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
    """A stream that refuses a cut-off line: headers that were cut off would otherwise look complete."""

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
        checked = look_up(url, seconds=seconds)
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
        # So that the Host header leaves the usual port out. The socket is already open, checked and encrypted.
        connection.default_port = usual
        connection.auto_open = 0
        connection.response_class = _Response
        connection.sock = sock
        connection.request(method, parts.target, body=body, headers={"Connection": "close", **headers})
        with closing(connection.getresponse()) as response:
            values = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, values, _read(response))


def _read(response: http.client.HTTPResponse) -> bytes:
    """The body as far as it arrives: the status decides, so errors in the rest no longer matter."""
    body = b""
    with suppress(OSError, http.client.HTTPException, ValueError):
        while len(body) < MAX_BYTES and (piece := response.read1(min(CHUNK, MAX_BYTES - len(body)))):
            body += piece
    return body


def _connect(checked: Checked, deadline: float) -> socket.socket:
    """A socket to one of the checked IP addresses; TLS is verified for the host name in the URL."""
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


GONE_STATUS = 410
# Statuses of a receiver that is busy or failing as a whole, rather than refusing one message.
BUSY_STATUSES = frozenset({408, 425, 429})
EXCERPT = 1000
HIDDEN = "[hidden]"
# Shorter texts are not secrets, and may occur anywhere.
LEAST_HIDDEN = len(HIDDEN)


class Result(Enum):
    """Delivered; refused for this message alone; failed as a whole, so that others would too; or gone for good."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an attempt, as the delivery log shows it."""

    result: Result
    status: int | None = None
    response: str = ""
    error: str = ""
    retry_after: str | None = None


def outcome_of(reply: Reply) -> Outcome:
    """Return the result that a reply's status means."""
    return Outcome(
        result=_result_of(reply.status),
        status=reply.status,
        response=excerpt(reply.body),
        error=_redirect_error(reply),
        retry_after=reply.headers.get("retry-after"),
    )


def excerpt(body: bytes) -> str:
    """The beginning of an answer as text that every database takes."""
    return body[: EXCERPT * 4].decode("utf-8", "replace").replace("\x00", "\ufffd")[:EXCERPT]


def redact(outcome: Outcome, secrets: Mapping[str, object]) -> Outcome:
    """Redact these secrets: some receivers repeat what they were sent, and more people can see the log."""
    for secret in _hidden(secrets):
        outcome = replace(outcome, response=_redact(outcome.response, secret), error=_redact(outcome.error, secret))
    return outcome


def _hidden(secrets: Mapping[str, object]) -> Iterator[str]:
    """Every text among the secrets, as it was sent and then word by word, as `Bearer TOKEN` may be repeated in part."""
    for value in secrets.values():
        if isinstance(value, Mapping):
            yield from _hidden(value)
        elif isinstance(value, str):
            yield from (text for text in (value, *value.split()) if len(text) >= LEAST_HIDDEN)


def _redact(text: str, secret: str) -> str:
    text = text.replace(secret, HIDDEN)
    # An excerpt may end in the middle of it.
    begun = next((size for size in range(len(secret) - 1, LEAST_HIDDEN - 1, -1) if text.endswith(secret[:size])), 0)
    return text[:-begun] + HIDDEN if begun else text


def _result_of(status: int) -> Result:
    if 200 <= status < 300:
        return Result.DELIVERED
    if status == GONE_STATUS:
        return Result.GONE
    return Result.FAILED if status >= 500 or status in BUSY_STATUSES else Result.REFUSED


def _redirect_error(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return "The receiver redirects, and redirects are not followed. Enter the address that it redirects to."
    return ""


MAX_URL_LENGTH = 2000
Address = IPv4Address | IPv6Address

_WRITABLE = re.compile(r"[!-\[\]-~\u00a1-\U0010ffff]+")
# What the standards set aside, and what clouds answer metadata on; more than `is_global` of every Python refuses.
_CLOSED_V4 = [
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
# Of IPv6 only global unicast is open, less what is embedded IPv4, tunnels and documentation. NAT64 is outside of it.
_OPEN_V6 = ip_network("2000::/3")
_CLOSED_V6 = [ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]


class AddressRefused(ValueError):
    """The address cannot be sent to; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an address; `host` is in ASCII."""

    scheme: str
    host: str
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Checked:
    """An address that may be sent to, and the IP addresses behind it that passed."""

    parts: Parts
    ips: tuple[str, ...]


def parse_url(url: str) -> Parts:
    """Parse an http(s) address. Raises AddressRefused if it is not valid, or contains a user name."""
    if len(url) > MAX_URL_LENGTH or not _WRITABLE.fullmatch(url):
        raise AddressRefused("Enter an address without spaces, of at most 2,000 characters.")
    try:
        split = urlsplit(url)
        host, port = (split.hostname or "").encode("idna").decode("ascii"), split.port
    except (ValueError, UnicodeError) as error:
        raise AddressRefused(
            "This is not a valid address. Enter one such as https://hooks.example.com/store."
        ) from error
    if split.scheme not in ("https", "http") or not host:
        raise AddressRefused("Enter the whole address, including https://.")
    if "@" in split.netloc:
        raise AddressRefused("Leave the user name and password out of the address; send them in a header.")
    if port == 0:
        raise AddressRefused("0 is not a valid port.")
    target = (split.path or "/") + (f"?{split.query}" if split.query else "")
    if not target.isascii():
        raise AddressRefused("Percent-encode the path of the address, so that it is all ASCII.")
    return Parts(split.scheme, host, port or (443 if split.scheme == "https" else 80), target)


def look_up(url: str, *, seconds: float) -> Checked:
    """Ask for the IP addresses behind an address and keep those that may be sent to. Raises AddressRefused.

    Clear text goes only to networks that OUTBOX_ALLOWED_NETWORKS names.
    """
    parts = parse_url(url)
    found = _resolve(parts.host, parts.port, seconds)
    allowed = tuple(ip for ip in found if is_named(ip) or (parts.scheme == "https" and is_public(ip)))
    if allowed:
        return Checked(parts, allowed)
    if any(is_public(ip) for ip in found):
        raise AddressRefused(f"{parts.host} is on a public network; only https is sent there.")
    raise AddressRefused(
        f"{parts.host} resolves to {found[0]}, which is not public. Use OUTBOX_ALLOWED_NETWORKS to allow a network."
    )


def is_public(ip: str) -> bool:
    """Return True for a global unicast IP address; False for private and every other special one."""
    address = _parsed(ip)
    if address is None or not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def is_named(ip: str) -> bool:
    """Return True if OUTBOX_ALLOWED_NETWORKS contains this IP address."""
    address = _parsed(ip)
    return address is not None and any(address in network for network in settings.OUTBOX_ALLOWED_NETWORKS)


def _parsed(ip: str) -> Address | None:
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _resolve(host: str, port: int, seconds: float) -> Sequence[str]:
    """The IP addresses of a host. In a thread, since nothing else ends a name server that does not answer."""
    found: list[str] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(row[4][0]) for row in rows))
        except (OSError, UnicodeError) as error:
            errors.append(error)

    thread = threading.Thread(target=ask, name="look-up", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.01))
    if errors or not found:
        how = "cannot be found" if not thread.is_alive() else "was not found in time"
        raise AddressRefused(f"The host {host} {how}.")
    return tuple(found)
