from typing import Any

from django.apps import AppConfig
from django.apps import apps as every_app
from django.db.models.signals import post_migrate

from policystore.accounts import roles


class AccountsConfig(AppConfig):
    """People, roles and API keys."""

    name = "policystore.accounts"
    label = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        """Keep the groups of the roles in step with the code, once Django has made the permissions of every app."""
        last = [config for config in every_app.get_app_configs() if config.models_module][-1]
        post_migrate.connect(write_role_groups, sender=last, dispatch_uid="accounts.write_role_groups")


def write_role_groups(*, apps: Any = None, **_: Any) -> None:
    """Write the groups of the roles; does nothing before auth has its tables.

    `flush`, which empties a database that has all its tables, hands over no `apps`.
    """
    try:
        (apps or every_app).get_model("auth", "Permission")
    except LookupError:
        return
    roles.write_groups(apps or every_app)
