"""Replies to runners and systems: JSON, and for refusals a stable code and a sentence."""

from __future__ import annotations

import json
from typing import NamedTuple

from django.http import HttpResponse


class Reply(NamedTuple):
    """A status, a JSON body and extra headers, not yet bound to Django or WSGI."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"

    def to_response(self) -> HttpResponse:
        """Return the reply as a Django response."""
        return HttpResponse(self.body, status=self.status, content_type=self.content_type, headers=dict(self.headers))


def json_reply(value: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return a reply whose body is `value` as compact JSON."""
    return Reply(status=status, body=json.dumps(value, separators=(",", ":")).encode(), headers=headers)


def refusal(status: int, error: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return a refusal: `error` is a stable code for programs, `message` one sentence for people."""
    return json_reply({"error": error, "message": message}, status=status, headers=headers)


def method_not_allowed(*allowed: str) -> Reply:
    """Return 405 with the allowed methods."""
    methods = ", ".join(allowed)
    return refusal(405, "method_not_allowed", f"This address takes {methods} only.", headers=(("Allow", methods),))


INTERNAL_ERROR = refusal(500, "internal_error", "The store failed to answer; its log says why.")
WRONG_HOST = refusal(
    400, "wrong_host", "This store is not known by that host name; the operator lists it in ALLOWED_HOSTS."
)
