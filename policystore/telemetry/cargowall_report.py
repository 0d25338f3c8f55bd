"""Translates the report that CargoWall's action sends at the end of a job into events as agents post them.

Enums arrive as names, and fields with a zero value are missing. Names that are not known are skipped, so that a newer
client loses no more than what this store does not understand. In audit mode, an event that is called denied went
through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from policystore.traffic.event_parser import Malformed, ParsedEvent, parse, parse_text, parse_timestamp

MAX_NAME = 255
_DENY = "CARGO_WALL_ACTION_TYPE_DENY"
_ACTIONS = ("CARGO_WALL_ACTION_TYPE_ALLOW", _DENY)
_AUDIT = "CARGO_WALL_MODE_AUDIT"
_DNS, _CONNECTION, _PROTOCOL = (f"CARGO_WALL_EVENT_CATEGORY_{name}" for name in ("DNS", "CONNECTION", "PROTOCOL"))
# By category: the kind that agents send. An event without a category is one of the first two.
_KINDS = {_DNS: "dns", _CONNECTION: "networkconnection", _PROTOCOL: "networkconnection"}
_HAS_PORTS = ("", "TCP", "UDP")
_OPENED = "CargoWall opens it whatever the policy lists"
_DOWNGRADES = {
    "CARGO_WALL_DOWNGRADE_TYPE_AUDIT_FALLBACK": "audit",
    "CARGO_WALL_DOWNGRADE_TYPE_LOCKDOWN": "lockdown",
}
_FAILURES = {
    "CARGO_WALL_FETCH_FAILURE_CLASS_TRANSPORT": "the store did not answer",
    "CARGO_WALL_FETCH_FAILURE_CLASS_SERVER": "the store answered with an error",
    "CARGO_WALL_FETCH_FAILURE_CLASS_MALFORMED": "the answer could not be loaded",
}


class Report(NamedTuple):
    """What a job reports. `malformed` counts the events that cannot be parsed.

    `downgrade` is a Downgrade, or empty, and `downgrade_reason` says why. `version` is empty before v1.3.6.
    """

    job_key: str
    job_name: str
    version: str
    audits: bool
    downgrade: str
    downgrade_reason: str
    started_at: datetime | None
    events: tuple[ParsedEvent, ...]
    malformed: int

    @property
    def job(self) -> str:
        """The job as Harden-Runner names it: its key, which all jobs of a matrix share; its name if it has none."""
        return self.job_key or self.job_name


def parse_report(value: Mapping[str, Any]) -> Report:
    """Parse a report. Raises Malformed if something besides an event is not of its type."""
    audits = value.get("mode") == _AUDIT
    job_name = parse_text(value, "job_name")[:MAX_NAME]
    # All jobs of a matrix report for one job run, each about events of its own.
    sender = str(value.get("job_run_id") or job_name)[:MAX_NAME]
    events, malformed = [], 0
    for step, event in _events(value):
        try:
            parsed = _event(event, step=step, sender=sender, audits=audits)
        except Malformed:
            malformed += 1
        else:
            if parsed is not None:
                events.append(parsed)
    downgrade, reason = _downgrade(value.get("downgrade"))
    return Report(
        job_key=parse_text(value, "job_key")[:MAX_NAME],
        job_name=job_name,
        version=parse_text(value, "version")[:50],
        audits=audits,
        downgrade=downgrade,
        downgrade_reason=reason,
        started_at=parse_timestamp(parse_text(value, "started_at")),
        events=tuple(events),
        malformed=malformed,
    )


def _events(value: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The events of all steps, each with the name of its step."""
    for step in _list(value, "steps"):
        if not isinstance(step, Mapping):
            raise Malformed("A step is not an object.")
        name = parse_text(step, "name")
        yield from ((name, event) for event in _list(step, "events"))


def _list(value: Mapping[str, Any], name: str) -> list[object]:
    items = value.get(name, [])
    if not isinstance(items, list):
        raise Malformed(f"{name} is not an array.")
    return items


def _event(value: object, *, step: str, sender: str, audits: bool) -> ParsedEvent | None:
    """One event; None if its action or category is not known. Raises Malformed."""
    if not isinstance(value, Mapping):
        raise Malformed("The event is not an object.")
    is_call = bool(value.get("ip") or value.get("port"))
    action, category = value.get("action"), value.get("category", _CONNECTION if is_call else _DNS)
    if action not in _ACTIONS or not isinstance(category, str) or category not in _KINDS:
        return None
    is_opened = action != _DENY and value.get("auto_allowed_type") is not None
    protocol = parse_text(value, "protocol").upper()
    process = parse_text(value, "process")
    kind = _KINDS[category]
    reasons = (_OPENED if is_opened else "", "" if protocol == "TCP" else protocol)
    event = parse(
        kind,
        {
            "domainName": value.get("hostname"),
            "ipAddress": value.get("ip"),
            "port": value.get("port"),
            "timestamp": value.get("timestamp"),
            "tool": {"name": process} if process else None,
            "step": step,
            "matched_policy": value.get("matched_rule"),
            "reason": ", ".join(reason for reason in reasons if reason),
            "action": action,
            "sender": sender,
        },
    )
    event = event._replace(outcome=_outcome(action, is_opened=is_opened, audits=audits))
    is_other = kind != "dns" and (category == _PROTOCOL or protocol not in _HAS_PORTS or not value.get("port"))
    return event._replace(kind="other", port=0) if is_other else event


def _outcome(action: str, *, is_opened: bool, audits: bool) -> str:
    if action == _DENY:
        return "would_be_blocked" if audits else "blocked"
    return "allowed" if is_opened else ""


def _downgrade(value: object) -> tuple[str, str]:
    """What the client did because it could not load its policy, and why; empty if it says nothing of that kind."""
    if not isinstance(value, Mapping):
        return "", ""
    kind = _DOWNGRADES.get(str(value.get("type")), "")
    reason = _FAILURES.get(str(value.get("failure_class")), "") if kind else ""
    status = value.get("http_status")
    return kind, f"{reason} ({status})" if reason and isinstance(status, int) and 0 < status < 1000 else reason
