"""The catalog of events that integrations can receive; to add one, add a line."""

from __future__ import annotations

from typing import Final

# The kinds that people choose from, with their labels, in the order in which they are offered.
EVENTS: Final[dict[str, str]] = {}


def _event(kind: str, label: str) -> str:
    EVENTS[kind] = label
    return kind


DETECTION: Final = _event("detection", "Detection")
LOCKDOWN: Final = _event("lockdown", "Lockdown: a job was terminated")
BLOCKED_CALL: Final = _event("blocked_call", "Blocked call")
NEW_ENDPOINT: Final = _event("new_endpoint", "New endpoint")
POLICY_CREATED: Final = _event("policy.created", "Policy created")
POLICY_UPDATED: Final = _event("policy.updated", "Policy updated")
POLICY_ATTACHED: Final = _event("policy.attached", "Policy attached")
POLICY_DETACHED: Final = _event("policy.detached", "Policy detached")
POLICY_DELETED: Final = _event("policy.deleted", "Policy deleted")
FOUR_EYES: Final = _event("four_eyes", "Four eyes switched on or off")
CHANGE_REQUESTED: Final = _event("change.requested", "Change waits for a second person")
CHANGE_DECIDED: Final = _event("change.decided", "Change approved, declined or withdrawn")
SET_CREATED: Final = _event("endpoint_set.created", "Endpoint set created")
SET_UPDATED: Final = _event("endpoint_set.updated", "Endpoint set updated")
SET_DELETED: Final = _event("endpoint_set.deleted", "Endpoint set deleted")
POLICY_STAGED: Final = _event("policy.staged", "Staged version or its canary scopes changed")
POLICY_EXCEPTION: Final = _event("policy.exception", "Exception added, ended or expired")
BREAK_GLASS_STARTED: Final = _event("break_glass.started", "Break glass started")
BREAK_GLASS_ENDED: Final = _event("break_glass.ended", "Break glass ended")
NEVER_ALLOW_ADDED: Final = _event("never_allow.added", "Never-allow host added")
NEVER_ALLOW_REMOVED: Final = _event("never_allow.removed", "Never-allow host removed")
# Asked for on an integration's own page, whatever it chose.
TEST: Final = "test"

CHOICES: Final = list(EVENTS.items())
_LABELS: Final = {**EVENTS, TEST: "Test"}


def label_of(kind: str) -> str:
    """Return the label of a kind of event."""
    return _LABELS.get(kind, kind)


def is_known(kind: str) -> bool:
    """Return True if integrations can receive this kind of event."""
    return kind in _LABELS
