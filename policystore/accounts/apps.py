from typing import Any

from django.apps import AppConfig
from django.apps import apps as every_app
from django.db.models.signals import post_migrate

from policystore.accounts import roles


class AccountsConfig(AppConfig):
    """Who may do what."""

    name = "policystore.accounts"
    label = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        """Keep the groups of the roles in step with the code, after Django has made the permissions."""
        post_migrate.connect(write_role_groups, dispatch_uid="accounts.write_role_groups")


def write_role_groups(*, app_config: AppConfig, apps: Any = None, **_: Any) -> None:
    """Runs once an app; the last one finds all permissions there. Does nothing before auth has its tables.

    `flush`, which empties a database that has all its tables, hands over no `apps`.
    """
    try:
        (apps or every_app).get_model("auth", "Permission")
    except LookupError:
        return
    roles.write_groups(apps or every_app)
