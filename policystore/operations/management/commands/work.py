"""The worker process."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand

from policystore.operations import schedule


class Command(BaseCommand):
    """Runs beside the web processes; several may run at once."""

    help = "Do the store's scheduled work until stopped."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = False

        def stop(*_: object) -> None:
            nonlocal stopping
            stopping = True

        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        schedule.run_forever(lambda: stopping)
