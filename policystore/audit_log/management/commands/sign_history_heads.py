"""Signs the heads of the chains of events."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.audit_log import hash_chain, signed_heads
from policystore.audit_log.hash_chain import LEDGERS


class Command(BaseCommand):
    """`manage.py sign_history_heads --to FILE` or `--to s3://BUCKET/PREFIX`; `--public-key` prints the key instead."""

    help = "Verify the history and sign its heads. Keep them out of reach of people who can change the database."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--to", metavar="FILE|s3://BUCKET/PREFIX", default=settings.HISTORY_HEADS_TO)
        parser.add_argument("--public-key", action="store_true", help="print the key that verifies the signatures")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["public_key"]:
            self.stdout.write(signed_heads.public_key())
            return
        if not options["to"]:
            raise CommandError("Set a destination with --to FILE, --to s3://BUCKET/PREFIX or HISTORY_HEADS_TO.")
        hash_chain.seal_waiting()
        checks = [hash_chain.check(ledger, owner, new=None) for owner in hash_chain.owners() for ledger in LEDGERS]
        sound = [check for check in checks if check.sequence and not check.problem]
        try:
            signed_heads.put_away(sound, options["to"])
        except (OSError, ValueError, BotoCoreError, ClientError) as error:
            raise CommandError(f"The heads could not be written to {options['to']}: {error}") from error
        self.stdout.write(f"Signed {len(sound)} head{'' if len(sound) == 1 else 's'}.")
        broken = [f"{check.owner}: {check.problem}." for check in checks if check.problem]
        if broken:
            raise CommandError("Not signed, because verification failed: " + " ".join(broken))
