"""A store in production: its processes as the Procfile starts them, on a PostgreSQL database of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import contextmanager

import httpx
import psycopg
from psycopg import sql

from tests.both_databases import CHOSEN, clean_environment
from tests.operations.running import ROOT, Running, free_port, wait_until

HOST = "policystore.example.com"
SETTINGS = {
    "POLICYSTORE_MODE": "production",
    "SECRET_KEY": "v8Kq2mXw7RzT5yLd9NcF3hGj6BpS4aQe1UoZiVtM0xYrWk8Hn2Jf",
    "ALLOWED_HOSTS": HOST,
    "GITHUB_CLIENT_ID": "id",
    "GITHUB_CLIENT_SECRET": "the-client-secret-of-the-app",
    "GITHUB_ALLOWED_ORGANIZATIONS": "octo-org",
}
SEED = """
import json
from tests import factories
from policystore.accounts.actor import SYSTEM
from policystore.policy_language.scopes import Scope
from policystore.policies.core import attachments
organization = factories.organization("octo-org")
policy = factories.policy(organization, "default")
attachments.modify(policy=policy, add=[Scope.for_organization("octo-org")], by=SYSTEM)
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
        yield {**SETTINGS, "DATABASE_URL": address.replace("/postgres?", f"/{name}?")}
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
    """Make the tables, and an organization with a policy for all of it; returns its keys."""
    manage(settings, "migrate", "--noinput")
    return json.loads(manage(settings, "shell", "--no-imports", "-c", SEED))


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
