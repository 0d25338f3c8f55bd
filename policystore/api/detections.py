"""Detections as JSON."""

from __future__ import annotations

from django.http import HttpRequest

from policystore.api.auth import organization_of_key
from policystore.detections import queries
from policystore.detections.models import Detection
from policystore.detections.public_shape import payload
from policystore.web import pagination
from policystore.web.json_api import refuse, route, storable
from policystore.web.responses import Reply, json_reply

MAX_LIMIT = 500


@route("GET")
def detections(request: HttpRequest, owner: str) -> Reply:
    """Return detections, newest first, at most `limit`; pass `next_token` of the reply to get the next page."""
    organization = organization_of_key(request, owner)
    page = queries.page(
        organization,
        status=_status(request),
        detection_id=storable(request.GET.get("detection_id", ""))[:100],
        before=str(_number(request, "next_token", pagination.MAX_ROW_ID) or ""),
        size=_number(request, "limit", MAX_LIMIT) or 100,
    )
    for detection in page.rows:
        detection.organization = organization
    rows = [payload(detection) for detection in page.rows]
    data = {
        "detections": rows,
        "has_more": bool(page.next_cursor),
        "next_token": page.next_cursor,
        "count": len(rows),
    }
    return json_reply({"data": data})


def _status(request: HttpRequest) -> str:
    status = request.GET.get("status", "")
    if status and status not in Detection.Status.values:
        valid = ", ".join(Detection.Status.values)
        raise refuse(422, "invalid_parameter", f"“{status[:40]}” is not a valid status. Use one of {valid}.")
    return status


def _number(request: HttpRequest, name: str, max_value: int) -> int | None:
    text = request.GET.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 18 or int(text) == 0:
        raise refuse(422, "invalid_parameter", f"{name} must be a whole number of at least 1, for example 100.")
    return min(int(text), max_value)
