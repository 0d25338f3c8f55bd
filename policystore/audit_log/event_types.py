"""The kinds of history events, and how pages and integrations present each. Adding a kind takes one line.

A kind that has to show more than scopes, a diff and a reason has a template of its own in `policies/events/`, which
gets the event and its `details`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policystore.integrations import event_catalog


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event: its heading, its icon (a name of Lucide's), and what integrations know it as."""

    kind: str
    label: str
    icon: str
    integration_event: str
    template: str = ""


EVENT_TYPES: Final[dict[str, EventType]] = {}


def _event(kind: str, label: str, icon: str, integration_event: str, template: str = "") -> str:
    EVENT_TYPES[kind] = EventType(kind, label, icon, integration_event, template)
    return kind


_NEVER_ALLOW = "policies/events/never_allow.html"
_CHANGE = "policies/events/change.html"
_EXCEPTION = "policies/events/exception.html"
_STAGED = "policies/events/staged.html"
_BREAK_GLASS = "policies/events/break_glass.html"
_AS_CODE = "policies/events/as_code.html"
_UPDATED = "policies/events/updated.html"

CREATED: Final = _event("created", "Policy Created", "file-plus", event_catalog.POLICY_CREATED)
UPDATED: Final = _event("updated", "Policy Updated", "file-pen", event_catalog.POLICY_UPDATED, _UPDATED)
ATTACHED: Final = _event("attached", "Policy Attached", "link", event_catalog.POLICY_ATTACHED)
DETACHED: Final = _event("detached", "Policy Detached", "unlink", event_catalog.POLICY_DETACHED)
DELETED: Final = _event("deleted", "Policy Deleted", "trash-2", event_catalog.POLICY_DELETED)
FOUR_EYES_ON: Final = _event("four_eyes_on", "Four Eyes Switched On", "users", event_catalog.FOUR_EYES)
FOUR_EYES_OFF: Final = _event("four_eyes_off", "Four Eyes Switched Off", "users", event_catalog.FOUR_EYES)
CHANGE_REQUESTED: Final = _event(
    "change_requested", "Change Requested", "git-pull-request", event_catalog.CHANGE_REQUESTED, _CHANGE
)
CHANGE_APPROVED: Final = _event("change_approved", "Change Approved", "check", event_catalog.CHANGE_DECIDED, _CHANGE)
CHANGE_DECLINED: Final = _event("change_declined", "Change Declined", "x", event_catalog.CHANGE_DECIDED, _CHANGE)
CHANGE_WITHDRAWN: Final = _event(
    "change_withdrawn", "Change Withdrawn", "undo-2", event_catalog.CHANGE_DECIDED, _CHANGE
)
STAGED: Final = _event("staged", "Version Staged", "flask-conical", event_catalog.POLICY_STAGED, _STAGED)
STAGED_DISCARDED: Final = _event(
    "staged_discarded", "Staged Version Discarded", "flask-conical-off", event_catalog.POLICY_STAGED, _STAGED
)
CANARIES_CHANGED: Final = _event("canaries_changed", "Canary Scopes Changed", "bird", event_catalog.POLICY_STAGED)
EXCEPTION_ADDED: Final = _event(
    "exception_added", "Exception Added", "calendar-plus", event_catalog.POLICY_EXCEPTION, _EXCEPTION
)
EXCEPTION_ENDED: Final = _event(
    "exception_ended", "Exception Ended", "calendar-x", event_catalog.POLICY_EXCEPTION, _EXCEPTION
)
EXCEPTION_EXPIRED: Final = _event(
    "exception_expired", "Exception Expired", "calendar-clock", event_catalog.POLICY_EXCEPTION, _EXCEPTION
)
BREAK_GLASS_STARTED: Final = _event(
    "break_glass_started", "Break Glass Started", "shield-off", event_catalog.BREAK_GLASS_STARTED, _BREAK_GLASS
)
BREAK_GLASS_ENDED: Final = _event(
    "break_glass_ended", "Break Glass Ended", "shield-check", event_catalog.BREAK_GLASS_ENDED, _BREAK_GLASS
)
MANAGED: Final = _event("managed", "Policy Managed as Code", "git-branch", "", _AS_CODE)
RELEASED: Final = _event("released", "Policy Released from Code", "git-branch", "", _AS_CODE)
SET_CREATED: Final = _event("set_created", "Endpoint Set Created", "list-plus", event_catalog.SET_CREATED)
SET_UPDATED: Final = _event("set_updated", "Endpoint Set Updated", "list-tree", event_catalog.SET_UPDATED)
SET_DELETED: Final = _event("set_deleted", "Endpoint Set Deleted", "list-x", event_catalog.SET_DELETED)
NEVER_ALLOW_ADDED: Final = _event(
    "never_allow_added", "Never-Allow Host Added", "octagon-x", event_catalog.NEVER_ALLOW_ADDED, _NEVER_ALLOW
)
NEVER_ALLOW_EXPLAINED: Final = _event(
    "never_allow_explained", "Never-Allow Reason Changed", "octagon-alert", "", _NEVER_ALLOW
)
NEVER_ALLOW_REMOVED: Final = _event(
    "never_allow_removed", "Never-Allow Host Removed", "octagon-minus", event_catalog.NEVER_ALLOW_REMOVED, _NEVER_ALLOW
)


def of(kind: str) -> EventType:
    """How events of a kind are shown; a kind that a newer release wrote is shown by its own name."""
    known = EVENT_TYPES.get(kind)
    return known or EventType(kind, kind.replace("_", " ").capitalize(), "file-pen", "")
