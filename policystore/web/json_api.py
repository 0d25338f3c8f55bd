"""Replies to runners and systems as JSON, and what every `/v1` route shares: methods, bodies, errors, no caching.

A refusal has a stable code for programs and a sentence for people.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import wraps
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from policystore.db import vendor

logger = logging.getLogger(__name__)


class Reply(NamedTuple):
    """A status, a JSON body and extra headers, not yet bound to Django or WSGI."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"

    def to_response(self) -> HttpResponse:
        """Return the reply as a Django response."""
        return HttpResponse(self.body, status=self.status, content_type=self.content_type, headers=dict(self.headers))


def json_reply(value: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return a reply whose body is `value` as compact JSON."""
    return Reply(status=status, body=json.dumps(value, separators=(",", ":")).encode(), headers=headers)


def refusal(status: int, error: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return a refusal: `error` is a stable code for programs, `message` one sentence for people."""
    return json_reply({"error": error, "message": message}, status=status, headers=headers)


def method_not_allowed(*allowed: str) -> Reply:
    """Return 405 with the allowed methods."""
    methods = ", ".join(allowed)
    return refusal(405, "method_not_allowed", f"This address takes {methods} only.", headers=(("Allow", methods),))


INTERNAL_ERROR = refusal(500, "internal_error", "The store failed to answer; its log says why.")
WRONG_HOST = refusal(
    400, "wrong_host", "This store is not known by that host name; the operator lists it in ALLOWED_HOSTS."
)
MAX_BODY_BYTES = 1024 * 1024
DATABASE_UNAVAILABLE = refusal(
    503, "unavailable", "The database is unavailable; try again.", headers=(("Retry-After", "1"),)
)
RETRY_WRITES_SECONDS = 30
TOO_LARGE = refusal(413, "body_too_large", "The body is larger than 1 MiB. Split it into several requests.")

View = Callable[..., Reply]


class Refused(Exception):
    """Ends a view early with a reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def refuse(status: int, error: str, message: str, *, retry_after: int | None = None) -> Refused:
    """Return the exception that ends a view with this refusal; `retry_after` is in seconds."""
    headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
    return Refused(refusal(status, error, message, headers=headers))


def route(*methods: str) -> Callable[[View], Callable[..., HttpResponse]]:
    """Turn a view that returns a Reply into a `/v1` route; GET also answers HEAD.

    The view may raise Refused. An unavailable database gives 503, and an unexpected error 500, both as JSON.
    """
    allowed = (*methods, "HEAD") if "GET" in methods else methods

    def decorate(view: View) -> Callable[..., HttpResponse]:
        @csrf_exempt
        @login_not_required
        @never_cache
        @wraps(view)
        def answer(request: HttpRequest, **captured: str) -> HttpResponse:
            response = _reply(view, allowed, request, captured).to_response()
            if request.method == "HEAD":
                response["Content-Length"] = str(len(response.content))
                response.content = b""
            return response

        answer.methods = methods  # type: ignore[attr-defined]
        return answer

    return decorate


def _reply(view: View, allowed: tuple[str, ...], request: HttpRequest, captured: dict[str, str]) -> Reply:
    if request.method not in allowed:
        return method_not_allowed(*allowed)
    try:
        return view(request, **{name: storable(value or "") for name, value in captured.items()})
    except Refused as refused:
        return refused.reply
    except DatabaseError as error:
        return _database_refusal(request, error)
    except Exception:
        logger.exception("A %s request failed", request.method)
        return INTERNAL_ERROR


def _database_refusal(request: HttpRequest, error: DatabaseError) -> Reply:
    reason = vendor.why_no_writes(error)
    if reason is None:
        logger.exception("The database is unavailable; a %s request is refused", request.method)
        return DATABASE_UNAVAILABLE
    logger.exception("The database takes no writes: %s; a %s request is refused", reason, request.method)
    return no_writes(reason)


def no_writes(reason: str) -> Reply:
    """503: the database accepts no writes, for a `reason` such as "its disk is full"."""
    message = f"The database takes no writes now: {reason}. Nothing was changed; try again once that is fixed."
    return refusal(503, "no_writes", message, headers=(("Retry-After", str(RETRY_WRITES_SECONDS)),))


def storable(text: str) -> str:
    """Return the text without what a database cannot store (NUL, lone surrogates)."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def read_body(request: HttpRequest, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the body. Raises Refused with 413, before it is read, if it is larger than `max_bytes`."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or len(length) > 18 or int(length) > max_bytes:
        if max_bytes == MAX_BODY_BYTES:
            raise Refused(TOO_LARGE)
        raise refuse(413, "body_too_large", f"The body is larger than {max_bytes // 1024} KiB.")
    try:
        return request.body
    except RequestDataTooBig as error:
        raise Refused(TOO_LARGE) from error
    except UnreadablePostError as error:
        raise refuse(400, "unreadable_body", "The body ended too early; send it again.") from error


def client_address(request: HttpRequest) -> str:
    """Return the client's IP address; behind a trusted proxy, the one that the proxy saw. Empty if it is not valid."""
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.TRUST_FORWARDED_HEADERS else ""
    candidate = forwarded.rsplit(",", 1)[-1].strip() or request.META.get("REMOTE_ADDR", "")
    try:
        return str(ip_address(candidate))
    except ValueError:
        return ""


def client_network(request: HttpRequest) -> str:
    """Return the client's IPv4 address, or the /64 network of its IPv6 address, which one client owns; or empty."""
    address = client_address(request)
    if not address or isinstance(ip_address(address), IPv4Address):
        return address
    return str(ip_network(f"{address}/64", strict=False))


def parse_json(body: bytes, *, max_items: int | None = None) -> Any:
    """Parse a JSON body, whose outermost array may have at most `max_items` items.

    Raises Refused before parsing if that would be costly, and with the line and column if the body is not JSON.
    """
    try:
        check_json(body, max_items=max_items)
    except TooManyItems as error:
        raise refuse(
            413, "too_many_events", f"The body is too large: {error}. Split it into several requests."
        ) from error
    except TooComplex as error:
        raise refuse(400, "too_complex", f"The body is too complex: {error}. Split or flatten it.") from error
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise refuse(400, "invalid_json", f"The body is not JSON: {error.msg} in {place}.") from error
    except UnicodeDecodeError as error:
        raise refuse(400, "invalid_json", f"The body is not UTF-8: byte {error.start} is invalid.") from error
    except ValueError as error:
        raise refuse(400, "invalid_json", f"The body is not JSON: {error}.") from error


def json_object(request: HttpRequest, *, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Parse the body as a JSON object. Raises Refused."""
    value = parse_json(read_body(request, max_bytes=max_bytes))
    if not isinstance(value, dict):
        raise refuse(400, "invalid_json", "The body is not a JSON object; put braces around it.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a valid number")


# `json.loads` makes 1.4 million dictionaries of 4 MiB of `{},{},…` and holds the interpreter for most of a second. The
# checks here only count bytes, so the worst case takes milliseconds, and what passes is cheap to parse.
MAX_DEPTH = 16
# More than 1,000 events with fifteen processes each have: objects, arrays and commas; keys and strings.
MAX_SEPARATORS = 120_000
MAX_STRINGS = 240_000
_STRUCTURE = b"[]{},"
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
_OPENING, _CLOSING, _COMMA = frozenset(b"[{"), frozenset(b"]}"), ord(",")


class TooComplex(ValueError):
    """The text is nested too deeply or has too many values; `str()` says which, and the maximum."""


class TooManyItems(ValueError):
    """The outermost array has more items than allowed; `str()` has the maximum."""


def check_json(text: bytes, *, max_items: int | None = None) -> None:
    """Check the depth, the number of values and the items of the outermost array, whether or not the text is JSON.

    Raises TooComplex or TooManyItems. Malformed text may pass: parsing it fails soon, or makes few objects.
    """
    structure = _structure(text)
    closing = structure.count(b"]") + structure.count(b"}")
    if len(structure) > 2 * MAX_SEPARATORS or len(structure) - closing > MAX_SEPARATORS:
        raise TooComplex(f"it has more than {MAX_SEPARATORS:,} values")
    depth, items = 0, 1
    for byte in structure:
        if byte == _COMMA:
            items += depth == 1
        elif byte in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise TooComplex(f"it is nested more than {MAX_DEPTH} levels deep")
        else:
            depth -= 1
    if max_items is not None and items > max_items and structure.startswith(b"["):
        raise TooManyItems(f"it has more than {max_items:,} items")


def _structure(text: bytes) -> bytes:
    """Return the brackets, braces and commas outside of strings. Raises TooComplex."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 2 * MAX_STRINGS:
        raise TooComplex(f"it has more than {MAX_STRINGS:,} keys and strings")
    outside = b"".join(text.split(b'"')[::2])
    return outside.translate(None, delete=_NOT_STRUCTURE)
