"""Verifies the chains of events."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.policies import verification
from policystore.policies.chain import LEDGERS, Ledger


class Command(BaseCommand):
    """`manage.py verify_history [--organization NAME]`; ends with exit code 1 where something does not fit."""

    help = "Verify that no event of the history was changed, removed, put in or moved."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", metavar="NAME", help="only the history of this organization")

    def handle(self, *args: Any, **options: Any) -> None:
        owners = verification.owners()
        wanted = options["organization"]
        if wanted is not None:
            if wanted.lower() not in owners:
                raise CommandError(f"There is no history of an organization named {wanted}.")
            owners = [wanted.lower()]
        misfits = [self._verify(ledger, owner) for owner in owners for ledger in LEDGERS]
        if any(misfits):
            raise CommandError("The history does not verify.")

    def _verify(self, ledger: Ledger, owner: str) -> bool:
        """Tell how a chain is; whether something in it does not fit."""
        finding = verification.verify(ledger, owner)
        if finding.misfit:
            self.stdout.write(f"{owner}: {finding.misfit}.")
            return True
        number, waiting = finding.place.sequence, ledger.unsealed(owner).count()
        rest = f"; {waiting} not sealed yet, which the worker does" if waiting else ""
        self.stdout.write(f"{owner}: {number:,} {ledger.word}{'' if number == 1 else 's'} verified{rest}.")
        return False
