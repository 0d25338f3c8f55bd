"""Debian's PgBouncer in front of the PostgreSQL server that the suite runs on."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.operations.running import free_port, wait_until

CONFIGURATION = """
[databases]
* = host={server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
logfile = {folder}/log
pool_mode = {pool_mode}
default_pool_size = {pool_size}
max_client_conn = 500
stats_users = {stats_users}
"""


@contextmanager
def running(*, pool_mode="transaction", pool_size=10, stats_users=""):
    """Start PgBouncer; yields a function from a database's address to its address through PgBouncer."""
    server = parse_qs(urlsplit(os.environ["DATABASE_URL"]).query)["host"][0]
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="policystore-pgbouncer-") as name:
        folder = Path(name)
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "ini").write_text(
            CONFIGURATION.format(
                server=server,
                port=port,
                folder=folder,
                pool_mode=pool_mode,
                pool_size=pool_size,
                stats_users=stats_users,
            )
        )
        process = subprocess.Popen(
            [shutil.which("pgbouncer"), "-q", *_as_other_user(folder, server), str(folder / "ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def through(address):
            name = urlsplit(address).path.lstrip("/")
            return f"postgresql://postgres@127.0.0.1:{port}/{name}"

        try:
            wait_until(lambda: _answers(through(os.environ["DATABASE_URL"])), "an answer of PgBouncer", seconds=30)
            yield through
        finally:
            process.terminate()
            process.wait(timeout=20)


def _as_other_user(folder, server):
    """PgBouncer refuses to run as root; the owner of the server's socket may use it."""
    if os.geteuid() != 0:
        return []
    owner = pwd.getpwuid(Path(server).stat().st_uid)
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return ["-u", owner.pw_name]


def _answers(address):
    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=2) as connection:
            return connection.execute("SELECT 1", prepare=False).fetchone() == (1,)
    except psycopg.OperationalError:
        return False
