"""The worker process."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from policystore.db import connection_slots
from policystore.operations import worker
from policystore.operations.processes import StopRequest, end_with_starter


class Command(BaseCommand):
    """Runs beside the web processes; several may run at once."""

    help = "Do the store's scheduled work until stopped."
    # Checks load every page; `migrate` reports them.
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        request = StopRequest()
        request.listen()
        end_with_starter()
        connection_slots.wait_seconds = connection_slots.WORKER_WAIT_SECONDS
        worker.run_until(lambda: request.times > 0, scheduled=worker.jobs())
