"""Verifies the chains of events."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.policies import signed_heads, verification
from policystore.policies.chain import LEDGERS, Ledger


class Command(BaseCommand):
    """`manage.py verify_history [--organization NAME] [--heads FILE…]`; exit code 1 where something does not fit."""

    help = "Verify that no event of the history was changed, removed, put in or moved."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", metavar="NAME", help="only the history of this organization")
        parser.add_argument("--heads", metavar="FILE", type=Path, nargs="+", default=[], help="signed heads to hold to")
        parser.add_argument(
            "--public-key",
            metavar="KEY",
            nargs="+",
            default=[],
            help="whose signatures count, besides this store's",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        signed = _signed(options["heads"], [signed_heads.public_key(), *options["public_key"]])
        owners = sorted({*verification.owners(), *(owner for _, owner in signed)})
        wanted = options["organization"]
        if wanted is not None:
            if wanted.lower() not in owners:
                raise CommandError(f"There is no history of an organization named {wanted}.")
            owners = [wanted.lower()]
        misfits = [self._verify(ledger, owner, signed) for owner in owners for ledger in LEDGERS]
        if any(misfits):
            raise CommandError("The history does not verify.")

    def _verify(self, ledger: Ledger, owner: str, signed: signed_heads.Signed) -> bool:
        """Tell how a chain is; whether something in it does not fit."""
        heads = signed.get((ledger.name, owner), {})
        finding = verification.verify(ledger, owner, signed=heads)
        if finding.misfit:
            self.stdout.write(f"{owner}: {finding.misfit}.")
            return True
        number, waiting = finding.place.sequence, ledger.unsealed(owner).count()
        rest = f"; {waiting} not sealed yet, which the worker does" if waiting else ""
        held = f", {len(heads)} signed head{'' if len(heads) == 1 else 's'} among them" if heads else ""
        self.stdout.write(f"{owner}: {number:,} {ledger.word}{'' if number == 1 else 's'} verified{held}{rest}.")
        return False


def _signed(files: Iterable[Path], trusted: Collection[str]) -> signed_heads.Signed:
    found: signed_heads.Signed = {}
    for path in files:
        try:
            with path.open(encoding="utf-8") as lines:
                found = signed_heads.merged(found, signed_heads.read(lines, trusted=trusted))
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{path} cannot be read: {error}") from error
        except signed_heads.BadHead as error:
            raise CommandError(f"{path}: {error}.") from error
    return found
