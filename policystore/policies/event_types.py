"""The kinds of history events, and how each is shown and told; one more is one more line.

A kind that has to show more than scopes, a diff and a reason has a template of its own in `policies/events/`, which
gets the event and its `details`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policystore.integrations import events

CREATED: Final = "created"
UPDATED: Final = "updated"
ATTACHED: Final = "attached"
DETACHED: Final = "detached"
DELETED: Final = "deleted"
FOUR_EYES_ON: Final = "four_eyes_on"
FOUR_EYES_OFF: Final = "four_eyes_off"
CHANGE_REQUESTED: Final = "change_requested"
CHANGE_APPROVED: Final = "change_approved"
CHANGE_DECLINED: Final = "change_declined"
CHANGE_WITHDRAWN: Final = "change_withdrawn"
STAGED: Final = "staged"
STAGED_DISCARDED: Final = "staged_discarded"
CANARIES_CHANGED: Final = "canaries_changed"
EXCEPTION_ADDED: Final = "exception_added"
EXCEPTION_ENDED: Final = "exception_ended"
EXCEPTION_EXPIRED: Final = "exception_expired"
BREAK_GLASS_STARTED: Final = "break_glass_started"
BREAK_GLASS_ENDED: Final = "break_glass_ended"
MANAGED: Final = "managed"
RELEASED: Final = "released"
SET_CREATED: Final = "set_created"
SET_UPDATED: Final = "set_updated"
SET_DELETED: Final = "set_deleted"
NEVER_ALLOW_ADDED: Final = "never_allow_added"
NEVER_ALLOW_REMOVED: Final = "never_allow_removed"
NEVER_ALLOW_EXPLAINED: Final = "never_allow_explained"


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event: its heading, its icon (a name of Lucide's), and what integrations know it as."""

    kind: str
    label: str
    icon: str
    told_as: str
    template: str = ""


_NEVER_ALLOW = "policies/events/never_allow.html"
_CHANGE = "policies/events/change.html"
_EXCEPTION = "policies/events/exception.html"
_STAGED = "policies/events/staged.html"

EVENT_TYPES: Final = {
    event_type.kind: event_type
    for event_type in (
        EventType(CREATED, "Policy Created", "file-plus", events.POLICY_CREATED),
        EventType(UPDATED, "Policy Updated", "file-pen", events.POLICY_UPDATED, "policies/events/updated.html"),
        EventType(ATTACHED, "Policy Attached", "link", events.POLICY_ATTACHED),
        EventType(DETACHED, "Policy Detached", "unlink", events.POLICY_DETACHED),
        EventType(DELETED, "Policy Deleted", "trash-2", events.POLICY_DELETED),
        EventType(FOUR_EYES_ON, "Four Eyes Switched On", "users", events.FOUR_EYES),
        EventType(FOUR_EYES_OFF, "Four Eyes Switched Off", "users", events.FOUR_EYES),
        EventType(CHANGE_REQUESTED, "Change Requested", "git-pull-request", events.CHANGE_REQUESTED, _CHANGE),
        EventType(CHANGE_APPROVED, "Change Approved", "check", events.CHANGE_DECIDED, _CHANGE),
        EventType(CHANGE_DECLINED, "Change Declined", "x", events.CHANGE_DECIDED, _CHANGE),
        EventType(CHANGE_WITHDRAWN, "Change Withdrawn", "undo-2", events.CHANGE_DECIDED, _CHANGE),
        EventType(STAGED, "Version Staged", "flask-conical", events.POLICY_STAGED, _STAGED),
        EventType(STAGED_DISCARDED, "Staged Version Discarded", "flask-conical-off", events.POLICY_STAGED, _STAGED),
        EventType(CANARIES_CHANGED, "Canary Scopes Changed", "bird", events.POLICY_STAGED),
        EventType(EXCEPTION_ADDED, "Exception Added", "calendar-plus", events.POLICY_EXCEPTION, _EXCEPTION),
        EventType(EXCEPTION_ENDED, "Exception Ended", "calendar-x", events.POLICY_EXCEPTION, _EXCEPTION),
        EventType(EXCEPTION_EXPIRED, "Exception Expired", "calendar-clock", events.POLICY_EXCEPTION, _EXCEPTION),
        EventType(
            BREAK_GLASS_STARTED,
            "Break Glass Started",
            "shield-off",
            events.BREAK_GLASS_STARTED,
            "policies/events/break_glass.html",
        ),
        EventType(
            BREAK_GLASS_ENDED,
            "Break Glass Ended",
            "shield-check",
            events.BREAK_GLASS_ENDED,
            "policies/events/break_glass.html",
        ),
        EventType(MANAGED, "Policy Managed as Code", "git-branch", "", "policies/events/as_code.html"),
        EventType(RELEASED, "Policy Released from Code", "git-branch", "", "policies/events/as_code.html"),
        EventType(SET_CREATED, "Endpoint Set Created", "list-plus", events.SET_CREATED),
        EventType(SET_UPDATED, "Endpoint Set Updated", "list-tree", events.SET_UPDATED),
        EventType(SET_DELETED, "Endpoint Set Deleted", "list-x", events.SET_DELETED),
        EventType(NEVER_ALLOW_ADDED, "Never-Allow Host Added", "octagon-x", events.NEVER_ALLOW_ADDED, _NEVER_ALLOW),
        EventType(NEVER_ALLOW_EXPLAINED, "Never-Allow Host Explained Anew", "octagon-alert", "", _NEVER_ALLOW),
        EventType(
            NEVER_ALLOW_REMOVED, "Never-Allow Host Removed", "octagon-minus", events.NEVER_ALLOW_REMOVED, _NEVER_ALLOW
        ),
    )
}


def of(kind: str) -> EventType:
    """How events of a kind are shown; a kind that a newer release wrote is shown by its own name."""
    known = EVENT_TYPES.get(kind)
    return known or EventType(kind, kind.replace("_", " ").capitalize(), "file-pen", "")
