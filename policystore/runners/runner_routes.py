"""The routes of the fetch process other than the policy fetch: open to everyone, so never in the way of a fetch.

No middleware and no session is involved. What needs the database or a body gets a slot, of which there are fewer than
threads: whatever clients send, some threads are left for fetches. If no slot is free, the client is asked to retry.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from io import BytesIO
from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.http import HttpResponse
from django.urls import Resolver404, ResolverMatch, resolve

from policystore.db import statement_timeout
from policystore.runners.bodies import Bodies, Unfinished
from policystore.runners.front import is_allowed_host, respond
from policystore.runners.responses import WRONG_HOST, Reply, refusal

DATABASE_SLOTS = 2
MOST_BODY_BYTES = 8192
STATEMENT_SECONDS = 2.0

# These wait for nothing, or as briefly as a fetch does.
WITHOUT_SLOT = frozenset(
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
# `respond` sets these for every reply.
SET_ANYWAY = ("content-type", "content-length", "cache-control", "expires")
PROBES = frozenset(("healthz", "readyz", "metrics"))
UNKNOWN = refusal(404, "unknown_route", "The store has no such address; /v1/openapi.json lists all of them.")
WEB_ONLY = refusal(
    421, "wrong_process", "The fetch process answers runners only. Send this request to the web process."
)
BUSY = refusal(503, "busy", "Too many requests at the same time; try again.", headers=(("Retry-After", "1"),))


class RunnerRoutes:
    """A WSGI application for the routes of `urlconf`; every other one of the store's is refused, its body unread."""

    def __init__(self, urlconf: str) -> None:
        self._urlconf = urlconf
        self._bodies = Bodies(MOST_BODY_BYTES)
        self._database_slots = threading.BoundedSemaphore(DATABASE_SLOTS)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # Django replaces the path in the environ, so it gets a copy.
        path = WSGIRequest(dict(environ)).path_info
        try:
            match = resolve(path, self._urlconf)
        except Resolver404:
            return respond(_refusal(path), environ, start_response)
        if match.url_name not in PROBES and not is_allowed_host(environ):
            return respond(WRONG_HOST, environ, start_response)
        try:
            reply = self._body_and_answer(environ, match)
        except Unfinished as unfinished:
            return unfinished.keep_thread(respond(unfinished.reply, environ, start_response))
        return respond(reply, environ, start_response)

    def _body_and_answer(self, environ: dict[str, Any], match: ResolverMatch) -> Reply:
        body = self._bodies.read(environ) if environ["REQUEST_METHOD"] == "POST" else b""
        if isinstance(body, Reply):
            return body
        environ = {**environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return self._answer(environ, match)

    def _answer(self, environ: dict[str, Any], match: ResolverMatch) -> Reply:
        if match.url_name in WITHOUT_SLOT:
            return _called(environ, match)
        if not self._database_slots.acquire(blocking=False):
            return BUSY
        try:
            close_old_connections()
            with nullcontext() if match.url_name in PROBES else statement_timeout.timeout(STATEMENT_SECONDS):
                return _called(environ, match)
        finally:
            close_old_connections()
            self._database_slots.release()


def _called(environ: dict[str, Any], match: ResolverMatch) -> Reply:
    # A view answers HEAD as it answers GET; `respond` leaves out the body.
    method = "GET" if environ["REQUEST_METHOD"] == "HEAD" else environ["REQUEST_METHOD"]
    request = WSGIRequest({**environ, "REQUEST_METHOD": method})
    request.resolver_match = match
    response: HttpResponse = match.func(request, *match.args, **match.kwargs)
    headers = tuple(item for item in response.items() if item[0].lower() not in SET_ANYWAY)
    return Reply(response.status_code, response.content, headers, response["Content-Type"])


def _refusal(path: str) -> Reply:
    """404 for an address that the store does not have, 421 for one that belongs to the web process."""
    try:
        match = resolve(path)
    except Resolver404:
        return UNKNOWN
    return UNKNOWN if match.url_name == "unknown-route" else WEB_ONLY
