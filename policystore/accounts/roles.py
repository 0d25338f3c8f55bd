"""The roles of members, and what each role may do, as Django groups and permissions."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db.migrations.state import StateApps
from django.db.models import Q, TextChoices


class Role(TextChoices):
    """What a member may do; each role includes the ones before it."""

    AUDITOR = "auditor", "Auditor"
    SECURITY_ADMIN = "security_admin", "Security admin"
    OWNER = "owner", "Owner"


_AUDITOR = frozenset(
    {
        "policies.view_policy",
        "policies.view_endpointset",
        "policies.view_neverallowhost",
        "audit_log.view_historyevent",
        "inventory.view_repository",
        "runners.view_jobrun",
        "runners.view_blocklistentry",
        "detections.view_detection",
    }
)
_SECURITY_ADMIN = _AUDITOR | {
    "policies.add_policy",
    "policies.change_policy",
    "policies.delete_policy",
    "policies.change_endpointset",
    "policies.change_breakglass",
    "inventory.add_repository",
    "detections.change_detection",
    "detections.change_suppressionrule",
}
_OWNER = _SECURITY_ADMIN | {
    "accounts.view_apikey",
    "accounts.change_apikey",
    "accounts.view_membership",
    "inventory.change_cluster",
    "runners.change_blocklistentry",
    "policies.change_neverallowhost",
    "accounts.change_membership",
    "policies.view_foureyes",
    "policies.change_foureyes",
    "integrations.view_integration",
    "integrations.change_integration",
}

PERMISSIONS: dict[str, frozenset[str]] = {
    Role.AUDITOR: _AUDITOR,
    Role.SECURITY_ADMIN: _SECURITY_ADMIN,
    Role.OWNER: _OWNER,
}


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
