"""Checks of files, disk and certificates of this machine."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from django.conf import settings
from django.contrib.staticfiles import finders

from policystore.operations.findings import Finding, good, problem, warning

MEBIBYTE = 1024 * 1024
LITTLE_ROOM = 1024 * MEBIBYTE
NO_ROOM = 16 * MEBIBYTE
RENEW_WITHIN = timedelta(days=30)
# One file of each origin: the store's own, and the packages that pages cannot do without.
STATIC_FILES = ("css/policystore.css", "js/menus.js", "django_htmx/htmx-2.min.js", "django_ace/ace/ace.js")
CERTIFICATES = ("authority.pem", "server.pem")


def _sqlite_file() -> Path | None:
    database = settings.DATABASES["default"]
    return Path(database["NAME"]) if "sqlite" in database["ENGINE"] else None


def files_are_private() -> Finding | None:
    """Whether a local store's files can be written by this user, and read by no other."""
    database = _sqlite_file()
    if database is None:
        return None
    folder = database.parent
    files = [database, *(database.with_name(f"{database.name}{ending}") for ending in ("-wal", "-shm"))]
    unwritable = [path for path in (folder, *files) if path.exists() and not os.access(path, os.W_OK)]
    if unwritable:
        return problem(f"{unwritable[0]} cannot be written by this user; give it to the user who runs the store.")
    for path in (settings.DATA_DIR / "secret-key", settings.DATA_DIR / "tls" / "authority.key"):
        if _others_read(path):
            return problem(f"{path} can be read by other users of this machine; run `chmod go= {path}`.")
    if any(map(_others_read, files)):
        return warning(f"Other users of this machine can read the database; run `chmod go= {folder}`.")
    return good(f"The store's files in {folder} are its own.")


def _others_read(path: Path) -> bool:
    """Whether the file can be read and its folder entered by others than their owner."""
    return path.exists() and bool(path.stat().st_mode & 0o044 and path.parent.stat().st_mode & 0o011)


def there_is_room() -> Finding:
    """Whether the disk of the database, or where that is elsewhere of the store itself, has room."""
    database = _sqlite_file()
    folder = database.parent if database else settings.BASE_DIR
    free = shutil.disk_usage(folder).free
    told = f"{folder} has {free // MEBIBYTE:,} MiB of room"
    if free < NO_ROOM:
        return problem(f"{told}; the disk is full.")
    return warning(f"{told}; make some before it ends.") if free < LITTLE_ROOM else good(f"{told}.")


def static_files_are_there() -> Finding:
    """Whether pages find their style sheets and scripts."""
    missing = [name for name in STATIC_FILES if finders.find(name) is None]
    if missing:
        return problem(f"The static file {missing[0]} is missing; run `python3 -m uv sync --no-dev` in the checkout.")
    return good("Style sheets and scripts are there.")


def certificates_are_good() -> Finding | None:
    """Until when the certificates of `quickstart --tls` are good, where there are some."""
    paths = [path for name in CERTIFICATES if (path := settings.DATA_DIR / "tls" / name).exists()]
    if not paths:
        return None
    ends, path = min((x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc, path) for path in paths)
    told = f"{path.name} is good until {ends:%Y-%m-%d}"
    if ends < datetime.now(UTC):
        return problem(
            f"{path.name} was good until {ends:%Y-%m-%d}; restart `quickstart --tls`, which makes a new one."
        )
    if ends < datetime.now(UTC) + RENEW_WITHIN:
        return warning(f"{told}; restart `quickstart --tls`, which makes a new one.")
    return good(f"{told}.")
