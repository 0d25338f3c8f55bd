"""Django's command line, with errors in one line.

Django prints the errors that a command expects (CommandError). This handles the errors that any command can meet: a
database that is unavailable or has no tables yet, a file that cannot be written, an argument that is not text, or a
closed output pipe.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import DatabaseError

from policystore.db import online_migrations
from policystore.web.redaction import redact

# The exit code that shells give a process ended by Ctrl-C.
INTERRUPTED = 130
# Its reader may have no valid settings yet, so it does not load them.
WITHOUT_SETTINGS = "help_topics"


def run(arguments: list[str]) -> None:
    """Run the command that the arguments name.

    An error ends the process with one line and exit code 1; with `--traceback` it is raised.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name in letters that the terminal cannot show must not fail a command that has done its work.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _run(arguments)
    except KeyboardInterrupt:
        _end("Interrupted.", code=INTERRUPTED)
    except BrokenPipeError:
        _end("")
    except (DatabaseError, OSError, UnicodeEncodeError, ImproperlyConfigured) as error:
        if "--traceback" in arguments:
            raise
        _end(_describe(error, arguments))


def _run(arguments: list[str]) -> None:
    if sys.stdout is None:
        raise OSError("Standard output is closed.")
    if arguments[1:2] == [WITHOUT_SETTINGS] and not settings.configured:
        settings.configure(INSTALLED_APPS=["policystore.operations"])
    try:
        execute_from_command_line(arguments)
    finally:
        # Here rather than at the end of the process, where Python would report a failure in its own way.
        sys.stdout.flush()


def _describe(error: Exception, arguments: list[str]) -> str:
    if isinstance(error, UnicodeEncodeError):
        return _invalid_argument(arguments) or str(error)
    if isinstance(error, DatabaseError):
        return _missing_migration() or f"The database: {first_line(error)}"
    return first_line(error)


def _invalid_argument(arguments: list[str]) -> str:
    """Describe the first argument that is not UTF-8; Python's surrogates cannot be looked up or stored."""
    wrong = [argument for argument in arguments if argument.encode(errors="replace").decode() != argument]
    return f"The argument {wrong[0]!a} is not UTF-8." if wrong else ""


def _missing_migration() -> str:
    try:
        missing = online_migrations.pending()
    except DatabaseError:
        return ""
    return f"The migration {'.'.join(missing[0])} was not applied; run `manage.py migrate`." if missing else ""


def _end(sentence: str, *, code: int = 1) -> NoReturn:
    if sentence:
        sys.stderr.write(f"policystore: {redact(sentence)}\n")
    if sys.stdout is not None:
        # Output that is still buffered would fail once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; PostgreSQL adds details in further lines."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
