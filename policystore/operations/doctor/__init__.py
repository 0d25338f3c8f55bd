"""Says in plain words what is wrong with an installation: a registry of small checks, and one way through them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

from django.db import DatabaseError

from policystore.operations import readiness
from policystore.operations.doctor import contents, database, machine, network_checks, pooling, settings
from policystore.operations.findings import Checked, MaybeCheck, first_line, problem

# What can be told without the database.
WITHOUT_DATABASE: dict[str, MaybeCheck] = {
    "settings": settings.django_agrees,
    "secrets": settings.secrets_are_apart,
    "public url": settings.public_url,
    "proxy": settings.https_is_told,
    "files": machine.files_are_private,
    "room": machine.there_is_room,
    "static files": machine.static_files_are_there,
    "certificates": machine.certificates_are_good,
    "issuers": network_checks.issuers_answer,
    "github": network_checks.github_answers,
    "database": database.it_answers,
    "pooler": pooling.connection_pooler,
    "connections": pooling.connections_suffice,
}
# What can be told of it whatever its tables are.
WITHOUT_TABLES: dict[str, MaybeCheck] = {
    "encoding": database.it_takes_every_letter,
    "newer release": database.no_newer_release,
    "integrity": database.it_is_whole,
    "clock": database.clocks_agree,
    "migrations": readiness.migrations,
}
WITH_TABLES: dict[str, MaybeCheck] = {
    "writes": readiness.writes,
    "worker": readiness.worker,
    "outbox": readiness.outbox_age,
    "retention": readiness.retention_keeps_up,
    "given up": contents.nothing_was_given_up,
    "receivers": contents.receivers_keep_up,
    "integrations": contents.secrets_can_be_read,
    "keys": contents.keys_are_used,
    "organizations": network_checks.organizations_are_the_same,
    "owners": contents.every_organization_has_an_owner,
    "tampering": contents.database_matches_history,
}
DECISIVE = ("database", "migrations")


def examine() -> Iterator[Checked]:
    """What each check finds, one after the other; without a database or its tables, nothing that needs them."""
    goes_on = True
    for checks in (WITHOUT_DATABASE, WITHOUT_TABLES, WITH_TABLES):
        for name, check in checks.items() if goes_on else ():
            checked = _examine(name, check, patient=checks is not WITHOUT_DATABASE)
            goes_on = goes_on and not (name in DECISIVE and checked and checked.finding.is_problem)
            if checked:
                yield checked


def _examine(name: str, check: MaybeCheck, *, patient: bool) -> Checked | None:
    try:
        with database.patience() if patient else nullcontext():
            finding = check()
    except DatabaseError as error:
        finding = problem(f"The database refused this check: {first_line(error).rstrip('.')}.")
    except Exception as error:
        finding = problem(f"The check itself failed: {type(error).__name__}: {first_line(error).rstrip('.')}.")
    return None if finding is None else Checked(name, finding)
