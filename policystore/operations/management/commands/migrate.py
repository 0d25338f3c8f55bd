"""Django's `migrate`, but it never blocks runners or another `migrate`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate

from policystore.db import online_migrations


class Command(migrate.Command):
    """Waits for a lock for a second only, and tries again, and for another migrate as long as that takes; otherwise
    Django's own command."""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--patience",
            type=float,
            default=900,
            metavar="SECONDS",
            help="How long to try again while others hold locks that a migration needs (PostgreSQL; default: 900).",
        )

    def handle(self, *args: Any, patience: float = 900, **options: Any) -> None:
        self._warn_of_wait(options)
        work: Callable[[], object] = partial(super().handle, *args, **options)
        if not (options["check_unapplied"] or options["plan"]):
            work = partial(self._alone, work)
        if not online_migrations.retry_on_lock(work, seconds=patience, report=self._report):
            raise CommandError(
                f"Others held locks for {patience:.0f} s that a migration needs{self._by_whom()}. Earlier migrations "
                "are applied. End the transactions that hold the locks, then run this again."
            )

    def _alone(self, work: Callable[[], object]) -> None:
        # Taken for each try, so that another migrate can work between two tries.
        with online_migrations.migrating(self._report):
            work()

    def _warn_of_wait(self, options: dict[str, Any]) -> None:
        """Say what indexes will wait for: their statements come back only when older transactions have ended."""
        waiting = online_migrations.oldest_transaction() if options["verbosity"] else None
        if waiting and online_migrations.pending():
            self._report(f"There is {waiting}; building an index waits for its end. Runners and pages do not wait.")

    def _report(self, sentence: str) -> None:
        self.stderr.write(f"\n{sentence}")

    def _by_whom(self) -> str:
        oldest = online_migrations.oldest_transaction()
        return f"; there is {oldest}" if oldest else ""
