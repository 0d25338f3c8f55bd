"""Stores that faults are done to."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest

from tests.both_databases import CHOSEN, postgresql, restart
from tests.operations import production
from tests.operations.production import FetchProcess, Production
from tests.operations.running import Running, descendants


@contextmanager
def _postgresql():
    """A server of the test's own, as durable as in production."""
    with postgresql() as server:
        control = SimpleNamespace(restart=partial(restart, server), processes=partial(_processes, server))
        yield {**production.SETTINGS, "DATABASE_URL": server.get_uri()}, control


def _processes(server):
    """The server's main process and all that it has started."""
    main = server.get_pid()
    return [main, *descendants(main)]


@contextmanager
def _sqlite():
    with tempfile.TemporaryDirectory(prefix="policystore-faults-") as folder:
        settings = {**production.SETTINGS, "POLICYSTORE_MODE": "local", "POLICYSTORE_DATA_DIR": folder}
        yield settings, SimpleNamespace(restart=None, processes=None)


@contextmanager
def _store():
    """A store on the run's database: `settings`, the `keys` of octo-org, and `start()`, `start_fetch()` and `work()` to
    start its processes; on PostgreSQL also `restart_database()` and `database_processes()`."""
    started = []
    with _sqlite() if os.environ[CHOSEN] == "sqlite" else _postgresql() as (settings, control):

        def start(**more):
            started.append(Production(settings, GUNICORN_LOG_LEVEL="critical", **more))
            return started[-1]

        def start_fetch(**more):
            started.append(FetchProcess(settings, **more))
            return started[-1]

        def work():
            started.append(Running([sys.executable, "manage.py", "work"], environment=settings))
            return started[-1]

        yield SimpleNamespace(
            settings=settings,
            keys=production.prepare(settings),
            start=start,
            start_fetch=start_fetch,
            work=work,
            restart_database=control.restart,
            database_processes=control.processes,
        )
        for process in started:
            process.end()


@pytest.fixture
def store():
    """A store of the test's own; see `_store`."""
    with _store() as made:
        yield made


@pytest.fixture(scope="module")
def shared_store():
    """A store for all tests of a module; see `_store`."""
    with _store() as made:
        yield made
