"""Writes a backup, while the store runs."""

from __future__ import annotations

import fcntl
import glob
import os
import tempfile
import zipfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from django.db import connection

from policystore import __version__
from policystore.db import online_migrations
from policystore.db.transactions import snapshot
from policystore.operations.backup.tables import (
    FORMAT,
    Digest,
    Manifest,
    Table,
    TableManifest,
    Unusable,
    fingerprints,
    tables_of,
)

UNFINISHED = ".unfinished"


def write(path: Path) -> Manifest:
    """Write everything as of one point in time; the file appears once it is complete, readable by its owner only.

    Raises Unusable where a newer release has changed the database, FileExistsError, other OSError and DatabaseError.
    """
    if path.exists():
        raise FileExistsError(f"{path} already exists.")
    _remove_left_over(path)
    handle, unfinished = _begin(path)
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                manifest = _write_all(archive)
            file.flush()
            os.fsync(file.fileno())
            # While the lock is still held; otherwise another backup could remove the file.
            _name(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return manifest


def _begin(path: Path) -> tuple[int, Path]:
    """Create a file that only its owner can read, locked until it is closed. Its name is unique, since another backup
    to the same path may be running."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=UNFINISHED)
        # Where files cannot be locked, no backup removes unfinished files either.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if (unfinished := Path(name)).exists():
            return handle, unfinished
        # Another backup removed it before it was locked.
        os.close(handle)


def _name(unfinished: Path, path: Path) -> None:
    """Give a whole file its name; unlike a rename alone it does not replace a file that was created meanwhile.

    Raises FileExistsError, other OSError.
    """
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise
    except OSError:
        # File systems such as those of USB sticks have no links.
        path.open("xb").close()
        unfinished.replace(path)


def _remove_left_over(path: Path) -> None:
    """Remove the unfinished files of earlier backups to this path: those that no process has locked."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.????????{UNFINISHED}"):
        # Another's file, or one that is being written.
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _write_all(archive: zipfile.ZipFile) -> Manifest:
    with snapshot():
        if unknown := online_migrations.unknown():
            raise Unusable(
                f"A newer release has changed this database ({unknown[0][0]}.{unknown[0][1]}); use that release."
            )
        migrations = sorted(online_migrations.applied() & online_migrations.known())
        manifest = Manifest(
            format=FORMAT,
            version=__version__,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            database=connection.vendor,
            migrations=migrations,
            tables=[_write_table(archive, table) for table in tables_of(migrations)],
            fingerprints=fingerprints(),
        )
    archive.writestr("manifest.json", manifest.to_json())
    return manifest


def _write_table(archive: zipfile.ZipFile, table: Table) -> TableManifest:
    digest = Digest()
    with archive.open(f"tables/{table.name}.jsonl", "w", force_zip64=True) as member:
        for line in table.lines():
            digest.add(line)
            member.write(line)
    return TableManifest(table.name, table.columns, digest.rows, str(digest), table.last_key())
