"""Answers probes before anything else of Django."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import resolve

PROBES = ("/healthz", "/readyz", "/metrics")


class ProbesFirst:
    """Load balancers and monitoring ask a process by its own address, often without TLS: neither the host name nor
    https matters to them, and no session is looked up."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info not in PROBES:
            return self._get_response(request)
        response: HttpResponse = resolve(request.path_info).func(request)
        return response
