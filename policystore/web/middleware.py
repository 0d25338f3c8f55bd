"""Answers probes before other middleware, keeps pages out of caches, and limits their database time."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.template.loader import render_to_string
from django.urls import is_valid_path, resolve

from policystore.db import statement_timeout
from policystore.web import metrics


class ProbesFirst:
    """Answer probes before Django checks the host name, redirects to https or looks up a session.

    Load balancers and monitoring call a process by its own address, often without TLS.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info not in metrics.PROBES:
            return self._get_response(request)
        response: HttpResponse = resolve(request.path_info).func(request)
        return response


class NoStoreMiddleware:
    """Keep pages and JSON out of caches, in the browser and on the way there: they show what only some people may see.

    It runs below the middleware that serves static files, which stay cacheable.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if "no-store" not in response.get("Cache-Control", ""):
            response["Cache-Control"] = "private, no-store"
        return response


class PageTimeout:
    """End the statements of a page: after PAGE_SECONDS if it only reads, otherwise after CHANGE_SECONDS.

    Fetches may be waiting for the process. CHANGE_SECONDS are over before gunicorn would end it. Routes below /v1 have
    no such limit.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if metrics.kind_of(request.path_info) != metrics.PAGE:
            return self._get_response(request)
        with statement_timeout.timeout(settings.PAGE_SECONDS if only_reads(request) else settings.CHANGE_SECONDS):
            return self._get_response(request)


def only_reads(request: HttpRequest) -> bool:
    """Return True if the page changes nothing. Neither does what htmx posts: it is a draft to preview."""
    return request.method in ("GET", "HEAD", "OPTIONS") or "HX-Request" in request.headers


class FormResults:
    """Answer a GET of an address that only takes forms with a page that links to the page above it.

    Browsers send one when a person reloads or restores what a form has led to.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        is_page = request.method == "GET" and metrics.kind_of(request.path_info) == metrics.PAGE
        if is_page and response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.content = render_to_string("405.html", {"above": _page_above(request.path_info)})
        return response


def _page_above(path: str) -> str:
    parts = path.strip("/").split("/")
    above = (f"/{'/'.join(parts[:length])}/" for length in range(len(parts) - 1, 0, -1))
    return next(filter(is_valid_path, above), "/")


class CompressPages(GZipMiddleware):
    """Compress pages and static files, but not what clients of the API read: some do not expect it."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Compress the response if it is not of an API."""
        is_api = request.path.startswith(("/v1", "/api/"))
        return response if is_api else super().process_response(request, response)
