"""Delivers what is due in the outbox; the worker does the same all the time."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from policystore.integrations import delivery


class Command(BaseCommand):
    """`manage.py deliver`; may run beside the worker."""

    help = "Deliver what is due to integrations, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seconds", type=float, default=3600, help="begin no attempt after so many seconds")

    def handle(self, *args: Any, **options: Any) -> None:
        attempts = delivery.deliver_due(seconds=options["seconds"])
        self.stdout.write(f"Made {attempts} attempt{'' if attempts == 1 else 's'}.")
