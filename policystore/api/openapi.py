"""The OpenAPI description of the store's routes below /v1, and the replies to addresses that it does not have."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from django.http import HttpRequest

from policystore.web.json_api import Reply, refusal, route

METHODS = ("get", "post", "delete")
UNKNOWN = refusal(404, "unknown_route", "The store has no such address; /v1/openapi.json lists those it has.")


@cache
def _description() -> bytes:
    return json.dumps(_parsed(), separators=(",", ":")).encode()


@cache
def routes() -> list[tuple[str, str, str]]:
    """Return each route below /v1 as (method, path, summary)."""
    paths = _parsed()["paths"].items()
    return [
        (method.upper(), path, operation["summary"])
        for path, operations in paths
        for method, operation in operations.items()
        if method in METHODS
    ]


def _parsed() -> dict[str, Any]:
    text = (Path(__file__).with_name("openapi.yaml")).read_text(encoding="utf-8")
    description: dict[str, Any] = yaml.safe_load(text)
    return description


@route("GET")
def openapi(request: HttpRequest) -> Reply:
    """Return the OpenAPI 3.1 description of every route below /v1."""
    return Reply(status=200, body=_description())


@route("GET", "POST", "PUT", "PATCH", "DELETE")
def invalid_cluster(request: HttpRequest, name: str = "") -> Reply:
    """Refuse a base address whose cluster name is not valid; 400, so that a misspelled Helm value is noticed."""
    return refusal(
        400,
        "invalid_cluster",
        f"“{name[:60]}” is not a valid cluster name. Start with a letter or digit, then use only letters, digits, dots,"
        " hyphens and underscores, for example /v1/clusters/prod-k8s.",
    )


@route("GET", "POST", "PUT", "PATCH", "DELETE")
def unknown_route(request: HttpRequest, **captured: str) -> Reply:
    """Answer everything else below /v1 with JSON, without a redirect for an extra or missing slash."""
    return UNKNOWN
