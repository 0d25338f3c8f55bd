"""The roles of members, and what each role may do, as Django groups and permissions."""

from __future__ import annotations

import operator
from itertools import accumulate

from django.apps.registry import Apps
from django.db.migrations.state import StateApps
from django.db.models import Q, TextChoices


class Role(TextChoices):
    """What a member may do; each role includes the ones before it."""

    AUDITOR = "auditor", "Auditor"
    SECURITY_ADMIN = "security_admin", "Security admin"
    OWNER = "owner", "Owner"


# What each role may do in addition to the roles before it: permissions, each with what it allows.
ADDED: dict[Role, dict[str, str]] = {
    Role.AUDITOR: {
        "policies.view_policy": "See policies, their versions, and which policy applies",
        "policies.view_endpointset": "See endpoint sets",
        "policies.view_neverallowhost": "See never-allow hosts",
        "audit_log.view_historyevent": "See the history and change requests",
        "inventory.view_repository": "See the inventory",
        "runners.view_jobrun": "See runs, coverage, baselines and insights",
        "runners.view_blocklistentry": "See the global blocklist",
        "detections.view_detection": "See detections and suppression rules",
    },
    Role.SECURITY_ADMIN: {
        "policies.add_policy": "Create policies",
        "policies.change_policy": "Edit, stage, attach and detach policies, add exceptions, approve changes",
        "policies.delete_policy": "Delete policies",
        "policies.change_endpointset": "Create, edit and delete endpoint sets",
        "policies.change_breakglass": "Break glass",
        "inventory.add_repository": "Add repositories, workflows and clusters to the inventory",
        "detections.change_detection": "Resolve detections",
        "detections.change_suppressionrule": "Add and remove suppression rules",
    },
    Role.OWNER: {
        "accounts.view_apikey": "See which keys exist, and the installation pages",
        "accounts.change_apikey": "Create, replace and revoke keys",
        "accounts.view_membership": "See members",
        "accounts.change_membership": "Add and remove members, and change their roles",
        "inventory.change_cluster": "Choose whether unverified jobs of a cluster count",
        "runners.change_blocklistentry": "Change the global blocklist",
        "policies.change_neverallowhost": "Change never-allow hosts",
        "policies.view_foureyes": "See whether four eyes is on",
        "policies.change_foureyes": "Turn four eyes on and off",
        "integrations.view_integration": "See integrations and their deliveries",
        "integrations.change_integration": "Add, change and remove integrations",
    },
}

PERMISSIONS: dict[str, frozenset[str]] = dict(
    zip(ADDED, accumulate(map(frozenset, ADDED.values()), operator.or_), strict=True)
)


def group_name(role: str) -> str:
    """The name of the Django group that carries a role's permissions."""
    return f"Policy Store: {Role(role).label}"


def write_groups(apps: Apps | StateApps) -> None:
    """Make the groups of these apps' models hold exactly PERMISSIONS; called after each migration."""
    groups = apps.get_model("auth", "Group").objects
    permissions = apps.get_model("auth", "Permission").objects
    for role, names in PERMISSIONS.items():
        group, _ = groups.get_or_create(name=group_name(role))
        group.permissions.set(permissions.filter(_any_of(names)))


def _any_of(names: frozenset[str]) -> Q:
    query = Q(pk__in=[])
    for name in names:
        app_label, _, codename = name.partition(".")
        query |= Q(content_type__app_label=app_label, codename=codename)
    return query
