"""What Django itself refuses, as a page for people and as JSON below /v1."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views import defaults

from policystore.runners.replies import refusal


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400: a host name that is not the store's, a malformed request."""
    if _is_route(request):
        return refusal(
            400, "bad_request", "The request is malformed or names a host that is not the store's."
        ).to_response()
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """500."""
    if _is_route(request):
        return refusal(500, "internal_error", "The store failed to answer; its log says why.").to_response()
    return defaults.server_error(request)


def _is_route(request: HttpRequest) -> bool:
    return request.path == "/v1" or request.path.startswith("/v1/")
