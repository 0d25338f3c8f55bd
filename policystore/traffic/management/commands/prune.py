"""Deletes single network events that are older than the retention; what is kept per run and per job stays."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from policystore.traffic.actions import events


class Command(BaseCommand):
    """`manage.py prune [--days N]`; the worker does the same every few minutes."""

    help = "Delete network events older than the retention, in small steps."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=settings.EVENT_RETENTION_DAYS, help="keep so many days")

    def handle(self, *args: Any, **options: Any) -> None:
        deleted = 0
        while step := events.prune_old(days=max(options["days"], 0)):
            deleted += step
        self.stdout.write(f"Deleted {deleted} network event{'' if deleted == 1 else 's'}.")
