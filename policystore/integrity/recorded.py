"""Replays history events to the rows that they leave behind, named by what they mean, and compares two sets of rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from policystore.accounts.models import AccountEvent
from policystore.audit_log import event_types as types
from policystore.audit_log.models import HistoryEvent
from policystore.policies.compiler import Rules
from policystore.policy_language import endpoint_sets, exceptions
from policystore.policy_language.document import renamed
from policystore.policy_language.endpoint_sets import KnownSets, check_set
from policystore.policy_language.exceptions import OpenException
from policystore.policy_language.never_allow import NeverAllow, from_pairs
from policystore.policy_language.scopes import Scope
from policystore.runners.blocklist import kind_of

BLOCKLIST_ENTRY: Final = "blocklist entry"
STORE_WIDE_ENTRY: Final = "store-wide blocklist entry"
CONTENT_KINDS: Final = (types.CREATED, types.UPDATED, types.DELETED)
SET_KINDS: Final = (types.SET_CREATED, types.SET_UPDATED, types.SET_DELETED)
NEVER_ALLOW_KINDS: Final = (types.NEVER_ALLOW_ADDED, types.NEVER_ALLOW_EXPLAINED, types.NEVER_ALLOW_REMOVED)
POLICY_KINDS: Final = (
    *CONTENT_KINDS,
    types.ATTACHED,
    types.DETACHED,
    types.STAGED,
    types.STAGED_DISCARDED,
    types.CANARIES_CHANGED,
    types.EXCEPTION_ADDED,
    types.EXCEPTION_ENDED,
    types.EXCEPTION_EXPIRED,
)
ORGANIZATION_KINDS: Final = (
    *NEVER_ALLOW_KINDS,
    types.BREAK_GLASS_STARTED,
    types.BREAK_GLASS_ENDED,
    types.FOUR_EYES_ON,
    types.FOUR_EYES_OFF,
)
# Values of these columns are long or confidential.
_HIDDEN = frozenset({"text", "reply", "endpoints", "open exceptions", "search text", "digest", "description"})
_MAX_SHOWN = 100


class Row(NamedTuple):
    """One row: what it is, such as "attachment", and what identifies it, such as a scope key."""

    kind: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.key}" if self.key else self.kind


Columns = Mapping[str, Any]
Rows = Mapping[Row, Columns]


class Subject(NamedTuple):
    """The subject of a problem: a policy, an endpoint set, or the rest of an organization, by type and id."""

    type: str
    id: int


@dataclass(frozen=True, slots=True)
class RecordedRules:
    """The rules that an organization's policies are compiled with, according to the history up to event `newest`."""

    newest: int
    sets: Mapping[int, Columns]
    hosts: Mapping[str, str]
    rules: Rules

    @classmethod
    def replay(
        cls, newest: int, last_of_sets: Iterable[HistoryEvent], of_hosts: Iterable[HistoryEvent]
    ) -> RecordedRules:
        """From the last event of each endpoint set and every event about never-allow hosts, in order."""
        sets = {event.subject_id: _set(event) for event in last_of_sets if event.kind != types.SET_DELETED}
        hosts: dict[str, str] = {}
        for event in of_hosts:
            if event.kind == types.NEVER_ALLOW_REMOVED:
                hosts.pop(event.details["host"], None)
            else:
                hosts[event.details["host"]] = event.reason
        known = KnownSets({found["name key"]: tuple(found.get("endpoints", ())) for found in sets.values()})
        return cls(newest, sets, hosts, Rules(known, from_pairs(sorted(hosts.items()))))


def _set(event: HistoryEvent) -> Columns:
    columns: dict[str, Any] = {
        "name": event.subject_name,
        "name key": event.subject_name.lower(),
        "description": event.description_after,
        "text": event.text_after,
        "version": event.version,
    }
    endpoints = check_set(event.text_after).endpoints
    if endpoints is not None:
        columns |= {"endpoints": list(endpoints), "endpoint count": len(endpoints)}
    return columns


@dataclass(slots=True)
class RecordedPolicy:
    """A policy while its events are replayed: what it is attached to, stages and excepts."""

    content: HistoryEvent | None = None
    attached: set[str] = field(default_factory=set)
    staged: HistoryEvent | None = None
    canaries: set[str] = field(default_factory=set)
    exceptions: dict[int, dict[str, Any]] = field(default_factory=dict)

    def apply(self, event: HistoryEvent) -> None:
        """Take in the next event about the policy."""
        details = event.details
        if event.kind in CONTENT_KINDS:
            self.content = event
            if "promotes" in details:
                self.staged, self.canaries = None, set()
        elif event.kind in (types.ATTACHED, types.DETACHED):
            self.attached = (self.attached - set(event.scopes_removed)) | set(event.scopes_added)
        elif event.kind == types.STAGED:
            self.staged, self.canaries = event, set(details["canaries"])
        elif event.kind == types.STAGED_DISCARDED:
            self.staged, self.canaries = None, set()
        elif event.kind == types.CANARIES_CHANGED:
            self.canaries = (self.canaries - set(event.scopes_removed)) | set(event.scopes_added)
        elif event.kind == types.EXCEPTION_ADDED:
            until = _time(details["until"])
            self.exceptions[details["exception"]] = {
                "endpoint": details["endpoint"],
                "added at": event.at,
                "expires at": until,
                "ended at": None,
            }
        elif event.kind in (types.EXCEPTION_ENDED, types.EXCEPTION_EXPIRED):
            exception = self.exceptions.get(details["exception"])
            if exception is not None:
                exception["ended at"] = min(event.at, exception["expires at"])

    def rows(self, organization_id: int, known: RecordedRules) -> dict[Row, Columns]:
        """The rows that the policy should have; none where it does not exist."""
        event = self.content
        if event is None or event.kind == types.DELETED:
            return {}
        rows: dict[Row, Columns] = {Row("policy"): self._columns(event, organization_id, known.rules.never_allow)}
        for key in self.attached:
            rows[Row("attachment", key)] = {"organization": organization_id, "scope type": Scope.from_key(key).type}
        included = endpoint_sets.keys_in(event.text_after)
        for set_id, columns in known.sets.items():
            if columns["name key"] in included:
                rows[Row("inclusion of endpoint set", columns["name key"])] = {"set ids": [set_id]}
        for exception_id, columns in self.exceptions.items():
            rows[Row("exception", str(exception_id))] = {"organization": organization_id, **columns}
        if self.staged is not None:
            rows[Row("staged version")] = _staged(self.staged, event.subject_name)
            rows.update((Row("canary scope", key), {}) for key in self.canaries)
        return rows

    def _columns(self, event: HistoryEvent, organization_id: int, never_allow: NeverAllow) -> Columns:
        return {
            "organization": organization_id,
            "name": event.subject_name,
            "name key": event.subject_name.lower(),
            "description": event.description_after,
            "text": event.text_after,
            "version": event.version,
            "reply": event.reply_after,
            **_of_reply(event.reply_after),
            "open exceptions": self._open_exceptions(never_allow),
            "attachment count": len(self.attached),
        }

    def _open_exceptions(self, never_allow: NeverAllow) -> str:
        open_ones = (found for _, found in sorted(self.exceptions.items()) if found["ended at"] is None)
        allowed = (found for found in open_ones if never_allow.refusing(found["endpoint"]) is None)
        return exceptions.encode(OpenException(found["expires at"], found["endpoint"]) for found in allowed)


def _staged(event: HistoryEvent, name: str) -> Columns:
    reply = renamed(event.details["reply"], name)
    return {
        "text": event.details["text_after"],
        "reply": reply,
        **_of_reply(reply),
        "based on version": event.details["based_on"],
        "event": event.pk,
    }


def _of_reply(reply: str) -> Columns:
    values = json.loads(reply)
    return {"egress policy": values["egress_policy"], "endpoint count": len(values["allowed_endpoints"])}


def organization_rows(events: Iterable[HistoryEvent]) -> dict[Row, Columns]:
    """The never-allow hosts, break glasses and four-eyes setting that an organization's events leave behind."""
    rows: dict[Row, dict[str, Any]] = {}
    for event in events:
        details = event.details
        if event.kind in NEVER_ALLOW_KINDS:
            host = Row("never-allow host", details["host"])
            rows[host] = {"reason": event.reason}
            if event.kind == types.NEVER_ALLOW_REMOVED:
                del rows[host]
        elif event.kind == types.BREAK_GLASS_STARTED:
            rows[Row("break glass", str(details["break_glass"]))] = {
                "scope": event.scopes_added[0],
                "started at": event.at,
                "ends at": _time(details["until"]),
                "ended at": None,
            }
        elif event.kind == types.BREAK_GLASS_ENDED:
            glass = rows.get(Row("break glass", str(details["break_glass"])))
            if glass is not None:
                glass["ended at"] = min(event.at, glass["ends at"])
        elif event.kind == types.FOUR_EYES_ON:
            rows[Row("four-eyes setting")] = {"keys alone": details["keys_alone"]}
        elif event.kind == types.FOUR_EYES_OFF:
            rows.pop(Row("four-eyes setting"), None)
    return dict(rows)


def account_rows(events: Iterable[AccountEvent]) -> dict[Row, Columns]:
    """The API keys and blocklist entries that an organization's account events leave behind."""
    rows: dict[Row, dict[str, Any]] = {}
    for event in events:
        listed, _, change = event.kind.rpartition(" ")
        if listed in (BLOCKLIST_ENTRY, STORE_WIDE_ENTRY):
            entry = Row(listed, event.subject)
            rows[entry] = {"kind": str(kind_of(event.subject)), "reason": event.detail}
            if change == "removed":
                del rows[entry]
        for key_id in event.details.get("revoked", ()):
            row = rows.get(Row("API key", str(key_id)))
            if row is not None:
                row["revoked"] = True
        key = event.details.get("api_key")
        if key is not None:
            columns = {name: value for name, value in key.items() if name != "id"}
            rows[Row("API key", str(key["id"]))] = {**columns, "revoked": False}
    return dict(rows)


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)


def set_rows(organization_id: int, columns: Columns | None) -> Rows:
    """The row that an endpoint set should have."""
    return {} if columns is None else {Row("endpoint set"): {"organization": organization_id, **columns}}


def differences(stored: Rows, recorded: Rows) -> Iterator[str]:
    """One sentence for each row and column that is not as the history recorded it."""
    for row in sorted(recorded.keys() - stored.keys()):
        yield f"The {row} is missing from the database, but the history has it."
    for row in sorted(stored.keys() - recorded.keys()):
        yield f"The {row} is in the database, but the history does not have it."
    for row in sorted(stored.keys() & recorded.keys()):
        for column, value in recorded[row].items():
            if stored[row][column] != value:
                shown = _shown(column, stored[row][column], value)
                yield f"The column “{column}” of the {row} differs from the history{shown}."


def _shown(column: str, stored: Any, recorded: Any) -> str:
    values = f" (stored: {stored}, recorded: {recorded})"
    return "" if column in _HIDDEN or len(values) > 2 * _MAX_SHOWN else values
