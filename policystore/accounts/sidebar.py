"""The frame of every page: the sidebar, the organization switcher, and what the person may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from policystore.accounts.models import Membership
from policystore.inventory.models import Organization

# A number beside an entry goes up to this.
MAX_COUNT = 99
# What is counted beside an entry, by the entry's view. The modules of these pages add it: they are above this app.
COUNTS: dict[str, Callable[[Organization], QuerySet[Any]]] = {}


@dataclass(frozen=True, slots=True)
class _Entry:
    label: str
    view: str
    icon: str
    permission: str
    begins_group: bool = False


# The sidebar: (heading, entries); an entry shows for those who may open it.
SECTIONS: tuple[tuple[str, tuple[_Entry, ...]], ...] = (
    (
        "Harden Runner",
        (
            _Entry("Policy Store", "policies:list", "shield-check", "policies.view_policy"),
            _Entry("Endpoint Sets", "endpoint-sets:list", "list-tree", "policies.view_endpointset"),
            _Entry("Change Requests", "policies:change-requests", "git-pull-request", "audit_log.view_historyevent"),
            _Entry("Baseline", "baseline:organization", "activity", "runners.view_jobrun", begins_group=True),
            _Entry("Coverage", "coverage", "list-checks", "runners.view_jobrun"),
            _Entry("Runs", "runs:list", "play", "runners.view_jobrun"),
            _Entry("Insights", "insights", "chart-column", "runners.view_jobrun"),
            _Entry("Detections", "detections:list", "siren", "detections.view_detection"),
        ),
    ),
    (
        "Settings",
        (
            _Entry("Harden-Runner Installation", "settings:keys", "key-round", "accounts.view_apikey"),
            _Entry("Management Keys", "settings:management-keys", "terminal", "accounts.view_apikey"),
            _Entry("Global Blocklist", "runners-settings:blocklist", "ban", "runners.view_blocklistentry"),
            _Entry("Never-Allow Hosts", "never-allow:list", "octagon-x", "policies.view_neverallowhost"),
            _Entry("Integrations", "integrations:list", "plug", "integrations.view_integration"),
            _Entry("Four Eyes", "four-eyes", "eye", "policies.view_foureyes"),
            _Entry("Members", "settings:members", "users", "accounts.view_membership"),
            _Entry("Inventory", "settings:inventory", "boxes", "inventory.view_repository"),
        ),
    ),
)
# The key that opens an entry after "g", by the entry's view.
SHORTCUTS = {
    "policies:list": "p",
    "policies:change-requests": "c",
    "baseline:organization": "b",
    "runs:list": "r",
    "insights": "i",
    "detections:list": "d",
}

_MAY = {
    "edit_policies": "policies.change_policy",
    "edit_endpoint_sets": "policies.change_endpointset",
    "delete_policies": "policies.delete_policy",
    "break_glass": "policies.change_breakglass",
    "edit_inventory": "inventory.add_repository",
    "change_clusters": "inventory.change_cluster",
    "view_installation": "accounts.view_apikey",
    "manage_keys": "accounts.change_apikey",
    "change_detections": "detections.change_detection",
    "edit_never_allow": "policies.change_neverallowhost",
    "edit_blocklist": "runners.change_blocklistentry",
    "change_four_eyes": "policies.change_foureyes",
    "manage_members": "accounts.change_membership",
    "edit_integrations": "integrations.change_integration",
}


class Navigation:
    """Read by templates as `nav`; asks the database only for what a template uses."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def organization(self) -> Organization | None:
        """The organization of the page, if the view got one."""
        return getattr(self._request, "organization", None)

    @cached_property
    def memberships(self) -> list[Membership]:
        """The organizations that the person can switch between."""
        user = getattr(self._request, "user", None)
        if user is None or not user.is_authenticated:
            return []
        return list(Membership.objects.filter(user=user).select_related("organization").order_by("organization__key"))

    @cached_property
    def may(self) -> dict[str, bool]:
        """The person's permissions in the organization, by the names that templates use."""
        user, organization = getattr(self._request, "user", None), self.organization
        return {
            word: bool(user and organization and user.has_perm(permission, organization))
            for word, permission in _MAY.items()
        }

    @cached_property
    def sections(self) -> list[dict[str, Any]]:
        """The sections of the sidebar, with the entries that the person may open."""
        organization = self.organization
        if organization is None:
            return []
        may = self._request.user.has_perm
        shown: list[dict[str, Any]] = [
            {"label": label, "entries": items}
            for label, entries in SECTIONS
            if (items := [self._item(entry, organization) for entry in entries if may(entry.permission, organization)])
        ]
        self._mark_page([item for section in shown for item in section["entries"]])
        return shown

    def _item(self, entry: _Entry, organization: Organization) -> dict[str, Any]:
        url = reverse(entry.view, args=[organization.key])
        return {
            "label": entry.label,
            "url": url,
            "icon": entry.icon,
            "begins_group": entry.begins_group,
            "shortcut": SHORTCUTS.get(entry.view, ""),
            "count": _count(entry, organization),
            "active": False,
        }

    def _mark_page(self, items: list[dict[str, Any]]) -> None:
        """Mark the entry that the page belongs to; one entry's address may begin with another's."""
        above = [item for item in items if self._request.path.startswith(item["url"])]
        if above:
            max(above, key=lambda item: len(item["url"]))["active"] = True


def _count(entry: _Entry, organization: Organization) -> str:
    """The number beside an entry, such as "3" or "99+"; empty if there is nothing to count."""
    if entry.view not in COUNTS:
        return ""
    number = COUNTS[entry.view](organization).order_by()[: MAX_COUNT + 1].count()
    return f"{MAX_COUNT}+" if number > MAX_COUNT else str(number or "")


def navigation(request: HttpRequest) -> dict[str, Any]:
    """The context processor."""
    return {"nav": Navigation(request)}
