"""Django's backend for servers that allow fewer connections than there are processes; see `connection_slots`."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base

from policystore.db import connection_slots
from policystore.db.connection_slots import Slots


class DatabaseWrapper(base.DatabaseWrapper):
    """Waits for a free connection, and gives an idle one back when few are free."""

    may_be_kept = True
    # Through a pooler, which may run each transaction on another connection, no statement must be prepared.
    is_direct = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect, for at most `wait_seconds` if all connections are in use."""
        connect = super().get_new_connection
        return connection_slots.connect(lambda: connect(conn_params))

    def init_connection_state(self) -> None:
        """Prepare a new connection."""
        super().init_connection_state()
        with self.connection.cursor() as cursor:
            slots = Slots(*cursor.execute(connection_slots.SLOTS).fetchone())
        self.may_be_kept, self.is_direct = slots.may_be_kept, slots.is_direct(self.connection)

    def close_if_unusable_or_obsolete(self) -> None:
        """Close a connection that is broken, too old, or wanted by others; called between requests and jobs."""
        super().close_if_unusable_or_obsolete()
        connection_slots.release(self)
