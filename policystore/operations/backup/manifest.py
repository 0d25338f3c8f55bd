"""The manifest of a backup."""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings

from policystore.db.online_migrations import Migration

FORMAT = 1
# The settings that a restored store needs to be what it was.
SECRETS = ("API_KEY_SECRET", "ENCRYPTION_KEYS")


class Unusable(Exception):
    """The file is not a backup that this store can restore; `str()` says why."""


@dataclass(frozen=True, slots=True)
class TableManifest:
    """A table in the backup; `last_key` is the last value of its primary key's sequence, None if it has none."""

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
    """The whole backup; `fingerprints` show whether a store has the same secrets, without revealing them."""

    format: int
    version: str
    made_at: str
    database: str
    migrations: list[Migration]
    tables: list[TableManifest]
    fingerprints: dict[str, str]

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(table.rows for table in self.tables)

    def to_json(self) -> bytes:
        """Encode the manifest."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Decode a manifest. Raises Unusable."""
        try:
            values: dict[str, Any] = json.loads(text)
            if values["format"] != FORMAT:
                raise Unusable(f"It has the format {values['format']}, which this release cannot read.")
            tables = [TableManifest(**table) for table in values.pop("tables")]
            migrations = [(str(app), str(name)) for app, name in values.pop("migrations")]
            secrets = {name: values["fingerprints"].get(name, "") for name in SECRETS}
            return cls(tables=tables, migrations=migrations, **{**values, "fingerprints": secrets})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Unusable("Its manifest cannot be read.") from error


def fingerprints() -> dict[str, str]:
    """A short fingerprint of each of SECRETS as they are set here."""
    values = {"API_KEY_SECRET": settings.API_KEY_SECRET, "ENCRYPTION_KEYS": settings.ENCRYPTION_KEYS[0]}
    return {
        name: hmac.digest(value.encode(), b"policystore backup", "sha256").hex()[:16] for name, value in values.items()
    }
