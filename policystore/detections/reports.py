"""Reads the detections that agents report, whatever is in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Any

from policystore.traffic.event_parser import LONGEST_HOST, Malformed, port_in, without_star
from policystore.web import times

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Report:
    """A detection as it was told; `client_at` is None where no time was told."""

    detection_id: str
    detail: str
    host: str
    port: int | None
    process: str
    is_lockdown: bool
    job_terminated: bool
    client_at: datetime | None
    digest: str


def read(value: object) -> Report:
    """A report in the shape that the product forwards: `id`, `detection`, `timestamp`, … Raises Malformed."""
    if not isinstance(value, Mapping):
        raise Malformed("The detection is not an object.")
    detection_id = _text(value, "id", 100)
    if not _ID.fullmatch(detection_id):
        raise Malformed("id is missing or is no name of a detection, such as Reverse-Shell.")
    lockdown = _switch(value, "is_lockdown")
    host, port = _endpoint(value)
    return Report(
        detection_id=detection_id,
        detail=_text(value, "detection", 1000),
        host=host,
        port=port,
        process=_text(value, "process", 255),
        is_lockdown=lockdown,
        job_terminated=lockdown and _switch(value, "job_terminated", default=True),
        client_at=_moment(value.get("timestamp")),
        digest=_digest(value),
    )


def _text(value: Mapping[str, Any], name: str, length: int) -> str:
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Malformed(f"{name} is not a text.")
    return found.replace("\0", "").encode("utf-8", "replace").decode()[:length]


def _switch(value: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    found = value.get(name, default)
    if not isinstance(found, bool):
        raise Malformed(f"{name} is neither true nor false.")
    return found


def _endpoint(value: Mapping[str, Any]) -> tuple[str, int | None]:
    """The host and the port, which is None where what is told is none."""
    told = _text(value, "endpoint", LONGEST_HOST + len(":65535"))
    host, colon, port = told.rpartition(":")
    if not colon or _is_ipv6(told):
        return without_star(told), None
    return without_star(host or told), port_in(port)


def _is_ipv6(text: str) -> bool:
    """Whether all of the text is an address, in brackets or not."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address, _, zone = bare.partition("%")
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return ":" not in zone


def _moment(told: object) -> datetime | None:
    """Seconds since 1970 as a text or number, or RFC 3339."""
    try:
        if isinstance(told, int | float) or (isinstance(told, str) and told.isdecimal()):
            return datetime.fromtimestamp(float(told), UTC)
        if isinstance(told, str) and told:
            return times.in_utc(datetime.fromisoformat(told))
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _digest(value: Mapping[str, Any]) -> str:
    written = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(written.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
