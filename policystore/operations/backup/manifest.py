"""What a backup says of itself."""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings

from policystore.db.online_migrations import Migration

FORMAT = 1
# The settings without which a restored store is not what it was.
SECRETS = ("API_KEY_SECRET", "ENCRYPTION_KEYS")


class Unusable(Exception):
    """The file is no backup that this store can take in; `str()` says why."""


@dataclass(frozen=True, slots=True)
class TableManifest:
    """How a table stands in the backup; `last_key` is how far its primary key had been counted, if it is counted."""

    name: str
    columns: list[str]
    rows: int
    digest: str
    last_key: int | None

    @property
    def member(self) -> str:
        """The name of its file in the archive."""
        return f"tables/{self.name}.jsonl"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole backup; `fingerprints` tell whether a store has the secrets that this one had, and nothing of them."""

    format: int
    version: str
    made_at: str
    database: str
    migrations: list[Migration]
    tables: list[TableManifest]
    fingerprints: dict[str, str]

    @property
    def rows(self) -> int:
        """How many rows there are altogether."""
        return sum(table.rows for table in self.tables)

    def to_json(self) -> bytes:
        """As it is written."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """As it was written. Raises Unusable."""
        try:
            told: dict[str, Any] = json.loads(text)
            if told["format"] != FORMAT:
                raise Unusable(f"It has the format {told['format']}, which another release of the store reads.")
            tables = [TableManifest(**table) for table in told.pop("tables")]
            migrations = [(str(app), str(name)) for app, name in told.pop("migrations")]
            secrets = {name: told["fingerprints"].get(name, "") for name in SECRETS}
            return cls(tables=tables, migrations=migrations, **{**told, "fingerprints": secrets})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Unusable("Its manifest cannot be read.") from error


def fingerprints() -> dict[str, str]:
    """A short fingerprint of each of SECRETS as they are set here."""
    values = {"API_KEY_SECRET": settings.API_KEY_SECRET, "ENCRYPTION_KEYS": settings.ENCRYPTION_KEYS[0]}
    return {
        name: hmac.digest(value.encode(), b"policystore backup", "sha256").hex()[:16] for name, value in values.items()
    }
