"""What the store tells of its own routes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import yaml
from django.http import HttpRequest

from policystore.runners.http import route
from policystore.runners.responses import Reply, refusal

UNKNOWN = refusal(404, "unknown_route", "The store has no such address; /v1/openapi.json lists those it has.")


@cache
def _description() -> bytes:
    text = (Path(__file__).parent.parent / "openapi.yaml").read_text(encoding="utf-8")
    return json.dumps(yaml.safe_load(text), separators=(",", ":")).encode()


@route("GET")
def openapi(request: HttpRequest) -> Reply:
    """The OpenAPI 3.1 description of every route below /v1."""
    return Reply(status=200, body=_description())


@route("GET", "POST", "PUT", "PATCH", "DELETE")
def invalid_cluster(request: HttpRequest, name: str = "") -> Reply:
    """A cluster base address whose name cannot name a cluster; 400, so that a misspelt Helm value is found."""
    return refusal(
        400,
        "invalid_cluster",
        f"“{name[:60]}” is not a valid cluster name. Start with a letter or digit, then use only letters, digits, dots,"
        " hyphens and underscores, for example /v1/clusters/prod-k8s.",
    )


@route("GET", "POST", "PUT", "PATCH", "DELETE")
def unknown_route(request: HttpRequest, **captured: str) -> Reply:
    """Everything else below /v1: JSON, and no redirect for a slash too many or too few."""
    return UNKNOWN
