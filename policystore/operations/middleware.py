"""Answers probes before anything else of Django, and gives pages only so much of the database's time."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import resolve

from policystore.db import statement_timeout
from policystore.web import metrics

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


class PagesInTime:
    """Ends the statements of a page that reads after PAGE_SECONDS, and of one that writes before gunicorn would end the
    process: fetches may be waiting for it. What runners and systems ask below /v1 has no such limit."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if metrics.kind_of(request.path_info) != metrics.PAGE:
            return self._get_response(request)
        with statement_timeout.within(
            settings.PAGE_SECONDS if statement_timeout.only_reads(request) else settings.CHANGE_SECONDS
        ):
            return self._get_response(request)
