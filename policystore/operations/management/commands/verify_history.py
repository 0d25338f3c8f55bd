"""Verifies the chains of events, and that the database is what they recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.audit_log import hash_chain, signed_heads
from policystore.audit_log.hash_chain import LEDGERS, Ledger
from policystore.integrity.comparing import Comparison, list_owners


class Command(BaseCommand):
    """`manage.py verify_history [--organization NAME] [--heads FILE…]`; exit code 1 if something does not match."""

    help = "Verify that no event of the history was changed, and that what runners get is what the history recorded."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", metavar="NAME", help="only the history of this organization")
        parser.add_argument("--heads", metavar="FILE", type=Path, nargs="+", default=[], help="signed heads to check")
        parser.add_argument(
            "--public-key",
            metavar="KEY",
            nargs="+",
            default=[],
            help="public keys whose signatures are accepted, besides this store's",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        signed = _signed(options["heads"], [signed_heads.public_key(), *options["public_key"]])
        owners = sorted({*list_owners(), *(owner for _, owner in signed)})
        wanted = options["organization"]
        if wanted is not None:
            if wanted.lower() not in owners:
                raise CommandError(f"There is no history of an organization named {wanted}.")
            owners = [wanted.lower()]
        misfits = [self._verify(ledger, owner, signed) for owner in owners for ledger in LEDGERS]
        differences = self._compare(owners)
        if any(misfits):
            raise CommandError("The history does not verify.")
        if differences:
            raise CommandError("The database does not match the history.")

    def _compare(self, owners: Collection[str]) -> int:
        """Print what in the database the history does not account for; return the number of sentences."""
        found = [problem for part in Comparison().slices(owners=owners) for problem in part.problems]
        for problem in found:
            self.stdout.write(problem.sentence)
        if not found:
            self.stdout.write("What runners get is what the history recorded.")
        return len(found)

    def _verify(self, ledger: Ledger, owner: str, signed: signed_heads.Signed) -> bool:
        """Print the state of a chain; return True if something in it does not match."""
        heads = signed.get((ledger.name, owner), {})
        finding = hash_chain.verify(ledger, owner, signed=heads)
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
