"""Deletes network events that are older than the retention. Aggregates per run and per job are kept."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from policystore.traffic import retention


class Command(BaseCommand):
    """`manage.py prune [--days N]`; the worker prunes every few minutes."""

    help = "Delete network events that are older than the retention."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=_days, default=settings.EVENT_RETENTION_DAYS, help="number of days to keep")

    def handle(self, *args: Any, **options: Any) -> None:
        deleted = retention.delete_exactly(days=options["days"])
        self.stdout.write(f"Deleted {deleted} network event{'' if deleted == 1 else 's'}.")


def _days(text: str) -> int:
    if not (text.isdecimal() and len(text) < 10 and int(text) <= settings.MOST_DAYS):
        raise ArgumentTypeError(f"{text!r} is not a number of days from 0 to {settings.MOST_DAYS}")
    return int(text)
