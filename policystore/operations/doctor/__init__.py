"""Checks an installation: a registry of small checks that say in plain words what is wrong and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from django.db import DatabaseError, connection

from policystore.db import online_migrations
from policystore.operations import health
from policystore.operations.command_line import first_line
from policystore.operations.doctor import database, installation
from policystore.operations.health import Checked, MaybeCheck, problem

# Checks that do not need the database to answer.
WITHOUT_DATABASE: dict[str, MaybeCheck] = {
    "settings": installation.django_agrees,
    "secrets": installation.secrets_are_apart,
    "public url": installation.public_url,
    "proxy": installation.https_is_forwarded,
    "files": installation.files_are_private,
    "room": installation.there_is_room,
    "static files": installation.static_files_are_there,
    "certificates": installation.certificates_are_good,
    "issuers": installation.issuers_answer,
    "github": installation.github_answers,
    "database": database.it_answers,
}
# Checks that do not need the store's tables.
WITHOUT_TABLES: dict[str, MaybeCheck] = {
    "pooler": database.connection_pooler,
    "connections": database.connections_suffice,
    "encoding": database.it_stores_utf8,
    "newer release": database.no_newer_release,
    "integrity": database.it_is_whole,
    "clock": database.clocks_agree,
    "migrations": health.migrations,
}
WITH_TABLES: dict[str, MaybeCheck] = {
    "writes": health.writes,
    "worker": health.worker,
    "outbox": health.worker_sends,
    "retention": health.retention_keeps_up,
    "given up": database.nothing_was_given_up,
    "receivers": database.receivers_keep_up,
    "integrations": database.secrets_can_be_read,
    "keys": database.keys_are_used,
    "organizations": installation.organizations_are_the_same,
    "owners": database.every_organization_has_an_owner,
    "tampering": database.database_matches_history,
}
# The rest run on both databases.
ONLY_ON = {
    "pooler": "postgresql",
    "connections": "postgresql",
    "encoding": "postgresql",
    "clock": "postgresql",
    "integrity": "sqlite",
}
# If one of these finds a problem, the checks of the later groups could only repeat it.
DECISIVE = ("database", "migrations")


def examine() -> Iterator[Checked]:
    """Yield what each check finds; if the database or its tables are missing, skip the checks that need them."""
    goes_on = True
    for checks in (WITHOUT_DATABASE, WITHOUT_TABLES, WITH_TABLES):
        for name, check in checks.items() if goes_on else ():
            if ONLY_ON.get(name, connection.vendor) != connection.vendor:
                continue
            checked = _examine(name, check, waits_for_locks=checks is not WITHOUT_DATABASE)
            goes_on = goes_on and not (name in DECISIVE and checked and checked[1].is_problem)
            if checked:
                yield checked


def _examine(name: str, check: MaybeCheck, *, waits_for_locks: bool) -> Checked | None:
    try:
        with online_migrations.lock_timeout(database.SECONDS) if waits_for_locks else nullcontext():
            finding = check()
    except DatabaseError as error:
        finding = problem(f"The database refused this check: {first_line(error).rstrip('.')}.")
    except Exception as error:
        finding = problem(f"The check itself failed: {type(error).__name__}: {first_line(error).rstrip('.')}.")
    return None if finding is None else (name, finding)
