"""Parses what agents post, one event at a time, and corrects the times of a client whose clock is wrong."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

SINKHOLE = "54.185.253.63"
DEFAULT_PORT = 443
MAX_ANCESTORS = 32
# The events of a job repeat a few hosts, addresses and ports. Texts longer than this are not valid as any of them.
CACHE_SIZE = 4096
MAX_TEXT = 300
MAX_HOST = 255
# A star as URLs escape it.
ESCAPED_STAR = "%2a"
CLOCK_TOLERANCE = timedelta(minutes=5)
_HOST = re.compile(r"[^\s\x00-\x1f\x7f/]{1,253}")
_PORT = re.compile(r"\s*0*([0-9]{1,5})(?![0-9])")
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)")


class Malformed(ValueError):
    """The event cannot be parsed. `str()` says which field is wrong."""


class ParsedEvent(NamedTuple):
    """A DNS answer or a connection.

    `client_at` is None if the client sent no valid time. `ancestry` is the process and its parents, nearest first, as
    JSON. `outcome` is the Status that the enforcer reports, such as `blocked`, or empty if the policy's list decides.
    `digest` identifies the event if it is sent again.
    """

    kind: str
    host: str
    port: int
    address: str
    client_at: datetime | None
    process: str
    ancestry: str
    step: str
    outcome: str
    reason: str
    digest: str


def is_call(kind: str, host: str, status: str) -> bool:
    """True for a connection, and for a blocked DNS answer or packet, which prevented a call. Others are not calls."""
    return host != SINKHOLE and (kind == "connection" or status == "blocked")


def parse(kind: str, value: object) -> ParsedEvent:
    """Parse an event of kind `dns` or `networkconnection`, in the agent's shape. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed("The event is not an object.")
    parser = _PARSERS.get(kind)
    if parser is None:
        raise Malformed("type is neither dns nor networkconnection.")
    return parser(value)


def parse_typed(value: object) -> ParsedEvent:
    """Parse an event of a batch, whose `type` is its kind. Raises Malformed."""
    kind = value.get("type") if isinstance(value, dict) else None
    return parse(kind if isinstance(kind, str) else "", value)


def _dns(value: Mapping[str, Any]) -> ParsedEvent:
    host = _host(parse_text(value, "domainName")[:MAX_TEXT])
    if not host:
        raise Malformed("domainName is missing.")
    address = _address(parse_text(value, "ipAddress")[:MAX_TEXT])
    return _event(value, "dns", host, DEFAULT_PORT, address, outcome=_outcome(is_dropped=address == SINKHOLE))


def _connection(value: Mapping[str, Any]) -> ParsedEvent:
    address = _address(parse_text(value, "ipAddress")[:MAX_TEXT])
    host = _host(parse_text(value, "domainName")[:MAX_TEXT]) or address
    if not host:
        raise Malformed("domainName and ipAddress are both missing.")
    is_dropped = parse_text(value, "status").lower() == "dropped" or address == SINKHOLE
    outcome = _outcome(is_dropped=is_dropped)
    return _event(value, "connection", host, _port(value.get("port", "")), address, outcome=outcome)


def _outcome(*, is_dropped: bool) -> str:
    return "blocked" if is_dropped else ""


_PARSERS: dict[str, Callable[[Mapping[str, Any]], ParsedEvent]] = {"dns": _dns, "networkconnection": _connection}


def _event(value: Mapping[str, Any], kind: str, host: str, port: int, address: str, *, outcome: str) -> ParsedEvent:
    process, ancestry = _processes(value.get("tool"))
    return ParsedEvent(
        kind=kind,
        host=host,
        port=port,
        address=address,
        client_at=parse_timestamp(parse_text(value, "timestamp")),
        process=process,
        ancestry=ancestry,
        step=parse_text(value, "step")[:255],
        outcome=outcome,
        reason=_reason(value),
        digest=_digest(kind, value),
    )


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def _digest(kind: str, value: Mapping[str, Any]) -> str:
    """A digest that is equal for an event that is sent again unchanged."""
    fields = dict(value)
    fields.pop("type", None)
    # The encoder escapes everything that is not ASCII.
    return hashlib.blake2b(_encode([kind, fields]).encode(), digest_size=16).hexdigest()


def parse_text(value: Mapping[str, Any], name: str) -> str:
    """A field without what a database cannot store; empty if it is missing. Raises Malformed if it is not a string."""
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise Malformed(f"{name} is not a string.")
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode()


@lru_cache(CACHE_SIZE)
def _host(name: str) -> str:
    host = name.strip().rstrip(".").lower()
    if host and not _HOST.fullmatch(host):
        raise Malformed("domainName is not a valid host name.")
    return escape_star(host)


def escape_star(host: str) -> str:
    """A host as it is stored: a policy created from observed hosts would treat a star as a wildcard."""
    return host.replace("*", ESCAPED_STAR)[:MAX_HOST]


@lru_cache(CACHE_SIZE)
def _address(text: str) -> str:
    if not text:
        return ""
    try:
        return str(ip_address(text.strip()))
    except ValueError as error:
        raise Malformed("ipAddress is not a valid IP address.") from error


def _port(value: object) -> int:
    """Agents send `443` or `443(https)`; a number is accepted too."""
    return _port_of("" if value is None else str(value)[:MAX_TEXT])


@lru_cache(CACHE_SIZE)
def _port_of(text: str) -> int:
    number = port_in(text) if text else DEFAULT_PORT
    if number is None:
        raise Malformed("port is not a valid port.")
    return number


def port_in(text: str) -> int | None:
    """The port that a text starts with, as in `443` and `443(https)`; None if it does not start with a valid port."""
    digits = _PORT.match(text)
    number = int(digits.group(1)) if digits else 0
    return number if 0 < number < 65536 else None


def _reason(value: Mapping[str, Any]) -> str:
    parts = (parse_text(value, "matched_policy"), parse_text(value, "reason"))
    return ": ".join(part for part in parts if part)[:500]


def _processes(tool: object) -> tuple[str, str]:
    """The name of the process, and the process with its parents as JSON."""
    processes: list[tuple[str, str]] = []
    while isinstance(tool, dict) and len(processes) < MAX_ANCESTORS:
        processes.append((parse_text(tool, "name")[:255], parse_text(tool, "sha256")[:64]))
        tool = tool.get("parent")
    return (processes[0][0], _as_json(tuple(processes))) if processes else ("", "[]")


@lru_cache(CACHE_SIZE)
def _as_json(processes: tuple[tuple[str, str], ...]) -> str:
    return json.dumps([{"name": name, "sha256": digest} for name, digest in processes])


def parse_timestamp(text: str) -> datetime | None:
    """Parse RFC 3339 with up to nine fractional digits, six of which are kept."""
    match = _TIMESTAMP.fullmatch(text.strip())
    if match is None:
        return None
    seconds, fraction, zone = match.groups()
    try:
        time = datetime.fromisoformat(f"{seconds}.{(fraction or '0')[:6].ljust(6, '0')}{zone.upper()}")
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def correct_times(
    client_times: Sequence[datetime | None], *, received_at: datetime, job_began_at: datetime
) -> list[datetime]:
    """When each event of one batch happened, in the store's time.

    If the newest event is in the future, or from before the job began, the client's clock is wrong: all times are
    shifted so that the newest is the time of arrival. An event without a time gets the time of arrival. No event is
    dated more than CLOCK_TOLERANCE before the job began: that would make a new endpoint look old.
    """
    known = [time for time in client_times if time is not None]
    if not known:
        return [received_at] * len(client_times)
    newest = max(known)
    is_wrong = newest > received_at + CLOCK_TOLERANCE or newest < job_began_at - CLOCK_TOLERANCE
    shift = received_at - newest if is_wrong else timedelta(0)
    earliest = job_began_at - CLOCK_TOLERANCE
    return [
        received_at if time is None else min(max(_shifted(time, shift), earliest), received_at) for time in client_times
    ]


def _shifted(time: datetime, shift: timedelta) -> datetime:
    try:
        return time + shift
    except OverflowError:
        return time
