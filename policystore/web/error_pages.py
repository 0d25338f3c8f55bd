"""Error responses for what Django itself refuses: a page for people, JSON below /v1."""

from __future__ import annotations

import re
import sys
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost, RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from policystore.db import statement_timeout, vendor
from policystore.web.json_api import INTERNAL_ERROR, RETRY_WRITES_SECONDS, WRONG_HOST, no_writes, refusal
from policystore.web.middleware import only_reads

RETRY_PAGE_SECONDS = 10
ELEMENT_ID = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
MALFORMED = refusal(400, "bad_request", "The request is malformed.")

# Django's own handlers look for a CSRF token in the body that could not be read, so they would fail, too.


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400 for an unknown host name or a malformed request; 413 for a form that is too large."""
    if _is_route(request):
        return (WRONG_HOST if isinstance(exception, DisallowedHost) else MALFORMED).to_response()
    too_large = isinstance(exception, RequestDataTooBig | TooManyFieldsSent | TooManyFilesSent)
    page = render_to_string("400.html", {"too_large": too_large})
    return HttpResponse(page, status=413 if too_large else 400)


def server_error(request: HttpRequest) -> HttpResponse:
    """500; or 503 if the database takes no writes, or took too long for a page."""
    # Django calls this while it handles the exception, from a view or from a middleware that saves a session.
    error = sys.exc_info()[1]
    if statement_timeout.is_out_of_time(error) and not _is_route(request):
        return out_of_time(request)
    why = vendor.why_no_writes(error) if isinstance(error, DatabaseError) else None
    if why is not None:
        return _no_writes(request, why)
    if _is_route(request):
        return INTERNAL_ERROR.to_response()
    return HttpResponse(render_to_string("500.html"), status=500)


def out_of_time(request: HttpRequest) -> HttpResponse:
    """503: the page needs more of the database's time than it may take."""
    context = {"is_reading": only_reads(request), "seconds": settings.PAGE_SECONDS}
    return _unavailable(request, "out_of_time.html", context, RETRY_PAGE_SECONDS)


def _no_writes(request: HttpRequest, why: str) -> HttpResponse:
    if _is_route(request):
        return no_writes(why).to_response()
    return _unavailable(request, "503.html", {"why": why}, RETRY_WRITES_SECONDS)


def _unavailable(request: HttpRequest, template: str, context: dict[str, Any], retry_after: int) -> HttpResponse:
    # htmx asked for a part of a page: show the error in its place.
    part = "#part" if "HX-Request" in request.headers else ""
    headers = {"Retry-After": str(retry_after), "HX-Reswap": "innerHTML"}
    page = render_to_string(template + part, {**context, "again": _again(request)})
    return HttpResponse(page, status=503, headers=headers)


def _again(request: HttpRequest) -> dict[str, str]:
    """Describe how htmx can request this part of a page again; empty if its target has no id."""
    part = request.headers.get("HX-Target", "")
    if not ELEMENT_ID.fullmatch(part):
        return {}
    return {"part": part, "method": "post" if request.method == "POST" else "get", "path": request.get_full_path()}


def _is_route(request: HttpRequest) -> bool:
    return request.path == "/v1" or request.path.startswith(("/v1/", "/api/"))
