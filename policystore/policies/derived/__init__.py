"""What the database itself keeps in step with policies and attachments, whoever writes them: an index of the text that
the list searches, and the counters above it.

Triggers write both in the statement's own transaction, so that neither the previous release, which may still be
running, nor a restore can leave anything out. `install` makes all of it and fills it from what is stored.

The index knows texts by their runs of three characters. It finds candidates; what compares the whole word decides.
"""

from django.db.backends.base.base import BaseDatabaseWrapper

from policystore.policies.derived.dialects import Dialect
from policystore.policies.derived.postgresql import Postgresql
from policystore.policies.derived.sqlite import Sqlite

# How the names of its tables begin; a backup has none of them, since triggers fill them as it is restored.
TABLES = (
    "policies_policy_counts",
    *(f"policies_{table}_{part}" for table in ("policy", "attachment") for part in ("grams", "search", "terms")),
)
_DIALECTS: dict[str, Dialect] = {"sqlite": Sqlite(), "postgresql": Postgresql()}


def on(connection: BaseDatabaseWrapper) -> Dialect:
    """The index and the counters on the database of this connection."""
    return _DIALECTS[connection.vendor]
