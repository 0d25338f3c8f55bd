"""Parses the detections that agents report."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Any

from policystore.policy_language import values
from policystore.traffic.event_parser import MAX_HOST, Malformed, escape_star, port_in
from policystore.web.json_api import storable

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Report:
    """A reported detection. `client_at` is None if no valid time was sent."""

    detection_id: str
    detail: str
    host: str
    port: int | None
    process: str
    is_lockdown: bool
    job_terminated: bool
    client_at: datetime | None
    digest: str


def parse(value: object) -> Report:
    """Parse a report in the shape that the product forwards: `id`, `detection`, `timestamp`, … Raises Malformed."""
    if not isinstance(value, Mapping):
        raise Malformed("The detection is not an object.")
    detection_id = _text(value, "id", 100)
    if not _ID.fullmatch(detection_id):
        raise Malformed("id is missing or is not a valid detection id, such as Reverse-Shell.")
    lockdown = _flag(value, "is_lockdown")
    host, port = _endpoint(value)
    return Report(
        detection_id=detection_id,
        detail=_text(value, "detection", 1000),
        host=host,
        port=port,
        process=_text(value, "process", 255),
        is_lockdown=lockdown,
        job_terminated=lockdown and _flag(value, "job_terminated", default=True),
        client_at=_time(value.get("timestamp")),
        digest=_digest(value),
    )


def _text(value: Mapping[str, Any], name: str, length: int) -> str:
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise Malformed(f"{name} is not a string.")
    return storable(text)[:length]


def _flag(value: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    flag = value.get(name, default)
    if not isinstance(flag, bool):
        raise Malformed(f"{name} is neither true nor false.")
    return flag


def _endpoint(value: Mapping[str, Any]) -> tuple[str, int | None]:
    """The host and the port, which is None if no valid port was sent."""
    text = _text(value, "endpoint", MAX_HOST + len(":65535"))
    host, colon, port = text.rpartition(":")
    if not colon or _is_ipv6(text):
        return escape_star(text), None
    return escape_star(host or text), port_in(port)


def _is_ipv6(text: str) -> bool:
    """True if the whole text is an IPv6 address, with or without brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address, _, zone = bare.partition("%")
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return ":" not in zone


def _time(value: object) -> datetime | None:
    """Parse seconds since 1970, as a string or number, or RFC 3339."""
    try:
        if isinstance(value, int | float) or (isinstance(value, str) and value.isdecimal()):
            return datetime.fromtimestamp(float(value), UTC)
        if isinstance(value, str) and value:
            return values.in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
