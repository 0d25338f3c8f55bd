"""What Django itself refuses, as a page for people and as JSON below /v1."""

from __future__ import annotations

import sys

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from policystore import storage
from policystore.runners.http import RETRY_WRITES_SECONDS, no_writes
from policystore.runners.replies import refusal

# Django's own handlers look for a CSRF token, and so read again the very body that could not be read: they fail, too.


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400: a host name that is not the store's, a malformed request; 413 for a form that is too large."""
    if _is_route(request):
        return refusal(
            400, "bad_request", "The request is malformed or names a host that is not the store's."
        ).to_response()
    too_large = isinstance(exception, RequestDataTooBig | TooManyFieldsSent | TooManyFilesSent)
    page = render_to_string("400.html", {"too_large": too_large})
    return HttpResponse(page, status=413 if too_large else 400)


def server_error(request: HttpRequest) -> HttpResponse:
    """500; or 503 where all that is wrong is that the database takes no writes."""
    # Django calls this while it handles the exception, from a view or from a middleware that saves a session.
    error = sys.exc_info()[1]
    why = storage.why_no_writes(error) if isinstance(error, DatabaseError) else None
    if why is not None:
        return _no_writes(request, why)
    if _is_route(request):
        return refusal(500, "internal_error", "The store failed to answer; its log says why.").to_response()
    return HttpResponse(render_to_string("500.html"), status=500)


def _no_writes(request: HttpRequest, why: str) -> HttpResponse:
    if _is_route(request):
        return no_writes(why).to_response()
    page = render_to_string("503.html", {"why": why})
    return HttpResponse(page, status=503, headers={"Retry-After": str(RETRY_WRITES_SECONDS)})


def _is_route(request: HttpRequest) -> bool:
    return request.path == "/v1" or request.path.startswith("/v1/")
