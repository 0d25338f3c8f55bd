from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class PoliciesConfig(AppConfig):
    """Policies, and all that changes them."""

    name = "policystore.policies"
    label = "policies"

    def ready(self) -> None:
        """Keep what is derived from policies whole: on SQLite a migration that alters a table drops its triggers."""
        post_migrate.connect(mend_derived, sender=self, dispatch_uid="policies.mend_derived")


def mend_derived(*, using: str, plan: Any = None, **_: Any) -> None:
    """Runs after the migrations; does nothing while the tables are not there yet."""
    # Models are not loaded yet when this module is.
    from policystore.policies.derived import install

    connection = connections[using]
    if "policies_policy_counts" in connection.introspection.table_names():
        install.mend(connection)
