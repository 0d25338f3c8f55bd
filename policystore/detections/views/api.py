"""Detections over the API, for systems with a management key."""

from __future__ import annotations

from django.http import HttpRequest

from policystore.db import row_ids
from policystore.detections import queries
from policystore.detections.models import Detection
from policystore.detections.public_shape import told
from policystore.runners.http import refuse, route, storable
from policystore.runners.responses import Reply, json_reply
from policystore.traffic.views.api import reading_organization

MAX_LIMIT = 500


@route("GET")
def detections(request: HttpRequest, owner: str) -> Reply:
    """Newest first, at most `limit`; `next_token` of one reply goes on from there."""
    organization = reading_organization(request, owner)
    page = queries.page(
        organization,
        status=_status(request),
        detection_id=storable(request.GET.get("detection_id", ""))[:100],
        before=str(_number(request, "next_token", row_ids.MOST) or ""),
        size=_number(request, "limit", MAX_LIMIT) or 100,
    )
    for detection in page.rows:
        detection.organization = organization
    events = [told(detection) for detection in page.rows]
    data = {
        "detections": events,
        "has_more": bool(page.next_cursor),
        "next_token": page.next_cursor,
        "count": len(events),
    }
    return json_reply({"data": data})


def _status(request: HttpRequest) -> str:
    status = request.GET.get("status", "")
    if status and status not in Detection.Status.values:
        raise refuse(422, "invalid_parameter", f"status is none of {', '.join(Detection.Status.values)}.")
    return status


def _number(request: HttpRequest, name: str, most: int) -> int | None:
    written = request.GET.get(name, "")
    if not written:
        return None
    if not (written.isascii() and written.isdecimal()) or len(written) > 18 or int(written) == 0:
        raise refuse(422, "invalid_parameter", f"{name} is not a number above 0.")
    return min(int(written), most)
