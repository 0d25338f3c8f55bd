"""What each role may do, as Django groups and permissions."""

from __future__ import annotations

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

from policystore.accounts.models import Role

_AUDITOR = frozenset(
    {
        "policies.view_policy",
        "policies.view_endpointset",
        "policies.view_neverallowhost",
        "policies.view_historyevent",
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


def write_groups() -> None:
    """Make the groups hold exactly the permissions above; called after each migration."""
    for role, names in PERMISSIONS.items():
        group, _ = Group.objects.get_or_create(name=group_name(role))
        group.permissions.set(_permissions(names))


def _permissions(names: frozenset[str]) -> list[Permission]:
    wanted = Q(pk__in=[])
    for name in names:
        app_label, _, codename = name.partition(".")
        wanted |= Q(content_type__app_label=app_label, codename=codename)
    return list(Permission.objects.filter(wanted))


def permissions_of(role: str) -> set[str]:
    """The permissions that the role's group holds, as `app.codename`."""
    rows = Permission.objects.filter(group__name=group_name(role)).values_list("content_type__app_label", "codename")
    return {f"{app_label}.{codename}" for app_label, codename in rows}
