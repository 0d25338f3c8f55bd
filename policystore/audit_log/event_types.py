"""The kinds of history events, and how pages and integrations present each. Adding a kind takes one line.

A kind that has to show more than scopes, a diff and a reason has a template of its own in `policies/events/`, which
gets the event and its `details`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policystore.integrations import event_catalog

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
    integration_event: str
    template: str = ""


_NEVER_ALLOW = "policies/events/never_allow.html"
_CHANGE = "policies/events/change.html"
_EXCEPTION = "policies/events/exception.html"
_STAGED = "policies/events/staged.html"

EVENT_TYPES: Final = {
    event_type.kind: event_type
    for event_type in (
        EventType(CREATED, "Policy Created", "file-plus", event_catalog.POLICY_CREATED),
        EventType(UPDATED, "Policy Updated", "file-pen", event_catalog.POLICY_UPDATED, "policies/events/updated.html"),
        EventType(ATTACHED, "Policy Attached", "link", event_catalog.POLICY_ATTACHED),
        EventType(DETACHED, "Policy Detached", "unlink", event_catalog.POLICY_DETACHED),
        EventType(DELETED, "Policy Deleted", "trash-2", event_catalog.POLICY_DELETED),
        EventType(FOUR_EYES_ON, "Four Eyes Switched On", "users", event_catalog.FOUR_EYES),
        EventType(FOUR_EYES_OFF, "Four Eyes Switched Off", "users", event_catalog.FOUR_EYES),
        EventType(CHANGE_REQUESTED, "Change Requested", "git-pull-request", event_catalog.CHANGE_REQUESTED, _CHANGE),
        EventType(CHANGE_APPROVED, "Change Approved", "check", event_catalog.CHANGE_DECIDED, _CHANGE),
        EventType(CHANGE_DECLINED, "Change Declined", "x", event_catalog.CHANGE_DECIDED, _CHANGE),
        EventType(CHANGE_WITHDRAWN, "Change Withdrawn", "undo-2", event_catalog.CHANGE_DECIDED, _CHANGE),
        EventType(STAGED, "Version Staged", "flask-conical", event_catalog.POLICY_STAGED, _STAGED),
        EventType(
            STAGED_DISCARDED, "Staged Version Discarded", "flask-conical-off", event_catalog.POLICY_STAGED, _STAGED
        ),
        EventType(CANARIES_CHANGED, "Canary Scopes Changed", "bird", event_catalog.POLICY_STAGED),
        EventType(EXCEPTION_ADDED, "Exception Added", "calendar-plus", event_catalog.POLICY_EXCEPTION, _EXCEPTION),
        EventType(EXCEPTION_ENDED, "Exception Ended", "calendar-x", event_catalog.POLICY_EXCEPTION, _EXCEPTION),
        EventType(EXCEPTION_EXPIRED, "Exception Expired", "calendar-clock", event_catalog.POLICY_EXCEPTION, _EXCEPTION),
        EventType(
            BREAK_GLASS_STARTED,
            "Break Glass Started",
            "shield-off",
            event_catalog.BREAK_GLASS_STARTED,
            "policies/events/break_glass.html",
        ),
        EventType(
            BREAK_GLASS_ENDED,
            "Break Glass Ended",
            "shield-check",
            event_catalog.BREAK_GLASS_ENDED,
            "policies/events/break_glass.html",
        ),
        EventType(MANAGED, "Policy Managed as Code", "git-branch", "", "policies/events/as_code.html"),
        EventType(RELEASED, "Policy Released from Code", "git-branch", "", "policies/events/as_code.html"),
        EventType(SET_CREATED, "Endpoint Set Created", "list-plus", event_catalog.SET_CREATED),
        EventType(SET_UPDATED, "Endpoint Set Updated", "list-tree", event_catalog.SET_UPDATED),
        EventType(SET_DELETED, "Endpoint Set Deleted", "list-x", event_catalog.SET_DELETED),
        EventType(
            NEVER_ALLOW_ADDED, "Never-Allow Host Added", "octagon-x", event_catalog.NEVER_ALLOW_ADDED, _NEVER_ALLOW
        ),
        EventType(NEVER_ALLOW_EXPLAINED, "Never-Allow Reason Changed", "octagon-alert", "", _NEVER_ALLOW),
        EventType(
            NEVER_ALLOW_REMOVED,
            "Never-Allow Host Removed",
            "octagon-minus",
            event_catalog.NEVER_ALLOW_REMOVED,
            _NEVER_ALLOW,
        ),
    )
}


def of(kind: str) -> EventType:
    """How events of a kind are shown; a kind that a newer release wrote is shown by its own name."""
    known = EVENT_TYPES.get(kind)
    return known or EventType(kind, kind.replace("_", " ").capitalize(), "file-pen", "")
