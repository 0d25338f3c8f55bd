"""The WSGI applications that answer runners ahead of Django's middleware.

In both processes, `FetchFirst` answers the policy fetches, for which every job waits. In the fetch process,
`RunnerRoutes` answers what else runners ask. Those routes are open to everyone, so they must never be in the way of a
fetch: no middleware and no session is involved, and a request that needs the database or a body gets a slot, of which
there are fewer than threads. Whatever clients send, some threads are left for fetches. If no slot is free, the client
is asked to retry.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.http import HttpResponse
from django.http.request import split_domain_port, validate_host
from django.urls import Resolver404, ResolverMatch, URLPattern, URLResolver, resolve

from policystore.db import statement_timeout
from policystore.runners.fetch import cargowall, handler
from policystore.runners.fetch.request_body import BodyReader, UnfinishedBody
from policystore.web import metrics
from policystore.web.json_api import MAX_BODY_BYTES, WRONG_HOST, Reply, method_not_allowed, refusal

FETCH_SUFFIX = "/actions/policies/workflow-policy"
FETCH_PATH = re.compile(rf"/v1/github/([^/]+)/([^/]+){FETCH_SUFFIX}")
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

DATABASE_SLOTS = 2
MAX_RUNNER_BODY_BYTES = 8192
STATEMENT_SECONDS = 2.0
# These routes wait for nothing, or as briefly as a fetch does.
ROUTES_WITHOUT_SLOT = frozenset(
    (
        "root",
        "invalid-cluster",
        "workflow-check",
        "subscription",
        "tls-inspection-status",
        "feature-flags",
        "healthz",
        "metrics",
    )
)
PROBE_ROUTES = frozenset(path.removeprefix("/") for path in metrics.PROBES)
# `send` sets these headers for every reply.
HEADERS_OF_EVERY_REPLY = ("content-type", "content-length", "cache-control", "expires")
UNKNOWN_ROUTE = refusal(404, "unknown_route", "The store has no such address; /v1/openapi.json lists all of them.")
WEB_ONLY = refusal(
    421, "wrong_process", "The fetch process answers runners only. Send this request to the web process."
)
BUSY = refusal(503, "busy", "Too many requests at the same time; try again.", headers=(("Retry-After", "1"),))

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class FetchFirst:
    """Answers the policy fetch and passes every other request to another WSGI application.

    Measured against bare gunicorn with one SELECT: 0.60 for the same answer as a Django view, 0.82 from here.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == cargowall.PATH:
            return send(_guarded(environ, lambda: cargowall.answer(environ)), environ, start_response)
        match = FETCH_PATH.fullmatch(path)
        if match is None:
            return self._application(environ, start_response)
        owner, repository = map(_decode_path, match.groups())
        reply = _guarded(environ, lambda: handler.answer(handler.FetchRequest.parse(owner, repository, environ)))
        return send(reply, environ, start_response)


class ChunkedBodies:
    """Reads a body sent in chunks and sets its Content-Length; without one, Django takes the body to be empty."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked" and not environ.get("CONTENT_LENGTH"):
            body = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
            environ["wsgi.input"], environ["CONTENT_LENGTH"] = BytesIO(body), str(len(body))
        return self._application(environ, start_response)


class RunnerRoutes:
    """Calls the Django views of the routes `urls`, and refuses every other route without reading its body."""

    def __init__(self, urls: tuple[URLPattern | URLResolver, ...]) -> None:
        self._urls = urls
        self._bodies = BodyReader(MAX_RUNNER_BODY_BYTES)
        self._database_slots = threading.BoundedSemaphore(DATABASE_SLOTS)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # WSGIRequest changes the path in the environ, so it gets a copy.
        path = WSGIRequest(dict(environ)).path_info
        try:
            match = resolve(path, self._urls)  # type: ignore[arg-type]
        except Resolver404:
            return send(_route_refusal(path), environ, start_response)
        if match.url_name not in PROBE_ROUTES and not _is_allowed_host(environ):
            return send(WRONG_HOST, environ, start_response)
        try:
            reply = self._read_body_and_call(environ, match)
        except UnfinishedBody as unfinished:
            return unfinished.hold_thread(send(unfinished.reply, environ, start_response))
        return send(reply, environ, start_response)

    def _read_body_and_call(self, environ: Environ, match: ResolverMatch) -> Reply:
        body = self._bodies.read(environ) if environ["REQUEST_METHOD"] == "POST" else b""
        if isinstance(body, Reply):
            return body
        environ = {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return self._call(environ, match)

    def _call(self, environ: Environ, match: ResolverMatch) -> Reply:
        if match.url_name in ROUTES_WITHOUT_SLOT:
            return _call_view(environ, match)
        if not self._database_slots.acquire(blocking=False):
            return BUSY
        try:
            close_old_connections()
            with nullcontext() if match.url_name in PROBE_ROUTES else statement_timeout.timeout(STATEMENT_SECONDS):
                return _call_view(environ, match)
        finally:
            close_old_connections()
            self._database_slots.release()


def send(reply: Reply, environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Start the response and return its body, which is empty for HEAD.

    The result is a list, because a server may wait for a slow client between the items of other iterables.
    """
    headers = [
        ("Content-Type", reply.content_type),
        ("Content-Length", str(len(reply.body))),
        ("Cache-Control", "no-store"),
        *reply.headers,
    ]
    start_response(STATUS_LINES[reply.status], headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else reply.body]


def _guarded(environ: Environ, answer: Callable[[], Reply]) -> Reply:
    """The answer, or the refusal of another method or host."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return method_not_allowed("GET", "HEAD")
    if not _is_allowed_host(environ):
        return WRONG_HOST
    return answer()


def _call_view(environ: Environ, match: ResolverMatch) -> Reply:
    # A view answers HEAD as it answers GET; `send` leaves out the body.
    method = "GET" if environ["REQUEST_METHOD"] == "HEAD" else environ["REQUEST_METHOD"]
    request = WSGIRequest({**environ, "REQUEST_METHOD": method})
    request.resolver_match = match
    response: HttpResponse = match.func(request, *match.args, **match.kwargs)
    headers = tuple(item for item in response.items() if item[0].lower() not in HEADERS_OF_EVERY_REPLY)
    return Reply(response.status_code, response.content, headers, response["Content-Type"])


def _route_refusal(path: str) -> Reply:
    """404 for an address that the store does not have, 421 for one that the web process answers."""
    try:
        match = resolve(path)
    except Resolver404:
        return UNKNOWN_ROUTE
    return UNKNOWN_ROUTE if match.url_name == "unknown-route" else WEB_ONLY


def _is_allowed_host(environ: Environ) -> bool:
    """Return True if ALLOWED_HOSTS matches the Host header."""
    return _matches_host(environ.get("HTTP_HOST", ""), tuple(settings.ALLOWED_HOSTS))


@lru_cache(maxsize=256)
def _matches_host(host: str, allowed: tuple[str, ...]) -> bool:
    return validate_host(split_domain_port(host)[0], allowed)


def _decode_path(text: str) -> str:
    """Decode a part of the path as UTF-8, whose bytes WSGI passes on as Latin-1."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "replace")
