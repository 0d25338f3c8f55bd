"""Reads what agents post, one event at a time, whatever is in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

SINKHOLE = "54.185.253.63"
DEFAULT_PORT = 443
MAX_ANCESTORS = 32
# The events of a job name few hosts, addresses and ports, again and again; longer texts than this are none.
REMEMBERED = 4096
LONGEST = 300
LONGEST_HOST = 255
# As in addresses.
STAR = "%2a"
_HOST = re.compile(r"[^\s\x00-\x1f\x7f/]{1,253}")
_PORT = re.compile(r"\s*0*([0-9]{1,5})(?![0-9])")
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)")


class Malformed(ValueError):
    """The event cannot be read; `str()` says which field is wrong."""


class Observation(NamedTuple):
    """A DNS answer or a connection.

    `client_at` is None where the client told no time; `ancestry` is the process and its parents, nearest first, as
    JSON. `dropped` says that the agent stopped the call.
    """

    kind: str
    host: str
    port: int
    address: str
    client_at: datetime | None
    process: str
    ancestry: str
    step: str
    dropped: bool
    reason: str
    digest: str


def is_call(kind: str, host: str, status: str) -> bool:
    """A DNS answer is no call; only one that was blocked tells of a call that did not come to be."""
    return host != SINKHOLE and (kind == "connection" or status == "blocked")


def read(kind: str, value: object) -> Observation:
    """An event of kind `dns` or `networkconnection`, in the agent's shape. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed("The event is not an object.")
    reader = _READERS.get(kind)
    if reader is None:
        raise Malformed("type is neither dns nor networkconnection.")
    return reader(value)


def read_any(value: object) -> Observation:
    """An event of a batch, whose `type` says which it is. Raises Malformed."""
    kind = value.get("type") if isinstance(value, dict) else None
    return read(kind if isinstance(kind, str) else "", value)


def _dns(value: Mapping[str, Any]) -> Observation:
    host = _host(_text(value, "domainName")[:LONGEST])
    if not host:
        raise Malformed("domainName is missing.")
    address = _address(_text(value, "ipAddress")[:LONGEST])
    return _observation(value, "dns", host, DEFAULT_PORT, address, dropped=address == SINKHOLE)


def _connection(value: Mapping[str, Any]) -> Observation:
    address = _address(_text(value, "ipAddress")[:LONGEST])
    host = _host(_text(value, "domainName")[:LONGEST]) or address
    if not host:
        raise Malformed("Neither domainName nor ipAddress is there.")
    dropped = _text(value, "status").lower() == "dropped" or address == SINKHOLE
    return _observation(value, "connection", host, _port(value.get("port", "")), address, dropped=dropped)


_READERS: dict[str, Callable[[Mapping[str, Any]], Observation]] = {"dns": _dns, "networkconnection": _connection}


def _observation(
    value: Mapping[str, Any], kind: str, host: str, port: int, address: str, *, dropped: bool
) -> Observation:
    process, ancestry = _processes(value.get("tool"))
    return Observation(
        kind=kind,
        host=host,
        port=port,
        address=address,
        client_at=_timestamp(_text(value, "timestamp")),
        process=process,
        ancestry=ancestry,
        step=_text(value, "step")[:255],
        dropped=dropped,
        reason=_reason(value),
        digest=_digest(kind, value),
    )


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def _digest(kind: str, value: Mapping[str, Any]) -> str:
    """The same for an event that is sent again, byte for byte."""
    said = dict(value)
    said.pop("type", None)
    # JSON escapes whatever is not ASCII.
    return hashlib.blake2b(_encode([kind, said]).encode(), digest_size=16).hexdigest()


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Malformed(f"{name} is not a text.")
    if found.isascii() and "\0" not in found:
        return found
    return found.replace("\0", "").encode("utf-8", "replace").decode()


@lru_cache(REMEMBERED)
def _host(name: str) -> str:
    host = name.strip().rstrip(".").lower()
    if host and not _HOST.fullmatch(host):
        raise Malformed("domainName is no host name.")
    return without_star(host)


def without_star(host: str) -> str:
    """A host as it is stored: a policy that is made of what was observed would take a star for a wildcard."""
    return host.replace("*", STAR)[:LONGEST_HOST]


@lru_cache(REMEMBERED)
def _address(text: str) -> str:
    if not text:
        return ""
    try:
        return str(ip_address(text.strip()))
    except ValueError as error:
        raise Malformed("ipAddress is no IP address.") from error


def _port(value: object) -> int:
    """Agents write `443` or `443(https)`; a number is taken too."""
    return _port_of("" if value is None else str(value)[:LONGEST])


@lru_cache(REMEMBERED)
def _port_of(text: str) -> int:
    number = port_in(text) if text else DEFAULT_PORT
    if number is None:
        raise Malformed("port is no port.")
    return number


def port_in(text: str) -> int | None:
    """The port that a text begins with, as in `443` and `443(https)`; None where that is none."""
    digits = _PORT.match(text)
    number = int(digits.group(1)) if digits else 0
    return number if 0 < number < 65536 else None


def _reason(value: Mapping[str, Any]) -> str:
    said = (_text(value, "matched_policy"), _text(value, "reason"))
    return ": ".join(part for part in said if part)[:500]


def _processes(tool: object) -> tuple[str, str]:
    """The name of the process, and it and its parents as JSON."""
    found: list[tuple[str, str]] = []
    while isinstance(tool, dict) and len(found) < MAX_ANCESTORS:
        found.append((_text(tool, "name")[:255], _text(tool, "sha256")[:64]))
        tool = tool.get("parent")
    return (found[0][0], _as_json(tuple(found))) if found else ("", "[]")


@lru_cache(REMEMBERED)
def _as_json(processes: tuple[tuple[str, str], ...]) -> str:
    return json.dumps([{"name": name, "sha256": digest} for name, digest in processes])


def _timestamp(text: str) -> datetime | None:
    """RFC 3339 with up to nine digits of a second's fraction, of which six are kept."""
    match = _TIMESTAMP.fullmatch(text.strip())
    if match is None:
        return None
    seconds, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{seconds}.{(fraction or '0')[:6].ljust(6, '0')}{zone.upper()}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
