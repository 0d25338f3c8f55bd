"""Says in plain words what is wrong with an installation: a registry of small checks, and one way through them."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import DatabaseError

from policystore.operations import readiness
from policystore.operations.doctor import contents, database, machine, settings, surroundings
from policystore.operations.findings import Checked, MaybeCheck, problem

# What can be told without the database.
WITHOUT_DATABASE: dict[str, MaybeCheck] = {
    "settings": settings.django_agrees,
    "secrets": settings.secrets_are_apart,
    "proxy": settings.https_is_told,
    "files": machine.files_are_private,
    "room": machine.there_is_room,
    "static files": machine.static_files_are_there,
    "certificates": machine.certificates_are_good,
    "issuers": surroundings.issuers_answer,
    "github": surroundings.github_answers,
    "database": database.it_answers,
}
WITH_DATABASE: dict[str, MaybeCheck] = {
    "migrations": readiness.migrations,
    "newer release": database.no_newer_release,
    "integrity": database.it_is_whole,
    "clock": database.clocks_agree,
    "writes": readiness.writes,
    "worker": readiness.worker,
    "outbox": readiness.outbox_age,
    "given up": contents.nothing_was_given_up,
    "integrations": contents.secrets_can_be_read,
    "keys": contents.keys_are_used,
    "owners": contents.every_organization_has_an_owner,
    "texts": contents.texts_can_be_read,
}


def examine() -> Iterator[Checked]:
    """What each check finds, one after the other; without a database, nothing that needs one."""
    answers = True
    for name, check in WITHOUT_DATABASE.items():
        checked = _examine(name, check)
        answers = answers and not (name == "database" and checked and checked.finding.is_problem)
        if checked:
            yield checked
    for name, check in WITH_DATABASE.items() if answers else ():
        checked = _examine(name, check)
        if checked:
            yield checked


def _examine(name: str, check: MaybeCheck) -> Checked | None:
    try:
        finding = check()
    except DatabaseError as error:
        finding = problem(f"The database refused this check: {_first_line(error)}.")
    except Exception as error:
        finding = problem(f"The check itself failed: {type(error).__name__}: {_first_line(error)}.")
    return None if finding is None else Checked(name, finding)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
