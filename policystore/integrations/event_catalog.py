"""The catalog of events that integrations can receive; to add one, add a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DETECTION: Final = "detection"
LOCKDOWN: Final = "lockdown"
BLOCKED_CALL: Final = "blocked_call"
NEW_ENDPOINT: Final = "new_endpoint"
POLICY_CREATED: Final = "policy.created"
POLICY_UPDATED: Final = "policy.updated"
POLICY_ATTACHED: Final = "policy.attached"
POLICY_DETACHED: Final = "policy.detached"
POLICY_DELETED: Final = "policy.deleted"
CHANGE_REQUESTED: Final = "change.requested"
CHANGE_DECIDED: Final = "change.decided"
FOUR_EYES: Final = "four_eyes"
SET_CREATED: Final = "endpoint_set.created"
SET_UPDATED: Final = "endpoint_set.updated"
SET_DELETED: Final = "endpoint_set.deleted"
POLICY_STAGED: Final = "policy.staged"
POLICY_EXCEPTION: Final = "policy.exception"
BREAK_GLASS_STARTED: Final = "break_glass.started"
BREAK_GLASS_ENDED: Final = "break_glass.ended"
NEVER_ALLOW_ADDED: Final = "never_allow.added"
NEVER_ALLOW_REMOVED: Final = "never_allow.removed"
# Asked for on an integration's own page, whatever it chose.
TEST: Final = "test"


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of event, as people choose it."""

    kind: str
    label: str


EVENTS: Final = (
    Event(DETECTION, "Detection"),
    Event(LOCKDOWN, "Lockdown: a job was terminated"),
    Event(BLOCKED_CALL, "Blocked call"),
    Event(NEW_ENDPOINT, "New endpoint"),
    Event(POLICY_CREATED, "Policy created"),
    Event(POLICY_UPDATED, "Policy updated"),
    Event(POLICY_ATTACHED, "Policy attached"),
    Event(POLICY_DETACHED, "Policy detached"),
    Event(POLICY_DELETED, "Policy deleted"),
    Event(FOUR_EYES, "Four eyes switched on or off"),
    Event(CHANGE_REQUESTED, "Change waits for a second person"),
    Event(CHANGE_DECIDED, "Change approved, declined or withdrawn"),
    Event(SET_CREATED, "Endpoint set created"),
    Event(SET_UPDATED, "Endpoint set updated"),
    Event(SET_DELETED, "Endpoint set deleted"),
    Event(POLICY_STAGED, "Staged version or its canary scopes changed"),
    Event(POLICY_EXCEPTION, "Exception added, ended or expired"),
    Event(BREAK_GLASS_STARTED, "Break glass started"),
    Event(BREAK_GLASS_ENDED, "Break glass ended"),
    Event(NEVER_ALLOW_ADDED, "Never-allow host added"),
    Event(NEVER_ALLOW_REMOVED, "Never-allow host removed"),
)
CHOICES: Final = [(event.kind, event.label) for event in EVENTS]
_LABELS: Final = {**dict(CHOICES), TEST: "Test"}


def label_of(kind: str) -> str:
    """Return the label of a kind of event."""
    return _LABELS.get(kind, kind)


def is_known(kind: str) -> bool:
    """Return True if integrations can receive this kind of event."""
    return kind in _LABELS
