"""Deletes network events that are older than the retention; what is kept per run and per job stays."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from policystore.traffic.actions import retention


class Command(BaseCommand):
    """`manage.py prune [--days N]`; the worker prunes every few minutes."""

    help = "Delete network events that are older than the retention."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=_days, default=settings.EVENT_RETENTION_DAYS, help="keep so many days")

    def handle(self, *args: Any, **options: Any) -> None:
        deleted = retention.delete_exactly(days=options["days"])
        self.stdout.write(f"Deleted {deleted} network event{'' if deleted == 1 else 's'}.")


def _days(written: str) -> int:
    if not (written.isdecimal() and len(written) < 10 and int(written) <= settings.MOST_DAYS):
        raise ArgumentTypeError(f"{written!r} is not a number of days from 0 to {settings.MOST_DAYS}")
    return int(written)
