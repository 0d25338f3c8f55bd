"""A database that takes no writes: changes are refused clearly, runners get their policies, and all is well after."""

import json
import os
import re
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, OperationalError
from django.urls import reverse
from psycopg import sql

from policystore.accounts.roles import Role
from policystore.db import vendor
from policystore.policies.core import actions as policies
from tests import factories
from tests.both_databases import postgresql
from tests.operations import production as in_production
from tests.operations.running import sign_in, wait_until
from tests.runners.asking import ask

FETCH = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy"
SEED = f"""{in_production.SEED}
from policystore.accounts import members
from policystore.accounts.roles import Role
members.add(organization=organization, username="admin", role=Role.OWNER, by=SYSTEM)
"""
# Long enough to need pages that the database file does not have yet.
ENDPOINTS = [f"{number}.example.com:443" for number in range(500)]
# So many ask while the disk is full.
JOBS = 50
# So many changes fill what is left at most.
MOST_CHANGES = 300


def caused_by(cause):
    """The error that Django raises for one of a driver's."""
    try:
        raise OperationalError("refused") from cause
    except OperationalError as error:
        return error


def sqlite_error(code):
    error = sqlite3.OperationalError("refused")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), "its disk is full"),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), "its disk refuses"),
        (sqlite_error(sqlite3.SQLITE_READONLY_DBMOVED), "its file cannot be written"),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN), "its files cannot be made"),
        (sqlite_error(sqlite3.SQLITE_BUSY), None),
        (sqlite_error(sqlite3.SQLITE_CONSTRAINT_UNIQUE), None),
        (psycopg.errors.DiskFull("no space left on device"), "its disk is full"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT"), "it is read-only"),
        (psycopg.errors.UniqueViolation("twice"), None),
        (psycopg.OperationalError("the connection is closed"), None),
        (None, None),
    ],
)
def test_a_database_that_takes_no_writes_is_told_from_other_failures(cause, why):
    assert vendor.why_no_writes(caused_by(cause)) == why


def full(**given):
    raise caused_by(sqlite_error(sqlite3.SQLITE_FULL))


@pytest.mark.django_db
class TestRefusals:
    """What people and systems are told."""

    def test_a_page_that_cannot_save_says_why(self, client, monkeypatch):
        organization = factories.organization()
        client.force_login(factories.member(organization), backend="policystore.accounts.access.RoleBackend")
        client.raise_request_exception = False
        monkeypatch.setattr(policies, "create", full)
        form = {"name": "new", "text": factories.TEXT, "description": ""}
        answer = client.post(reverse("policies:new", args=["octo-org"]), form)
        assert (answer.status_code, answer["Retry-After"]) == (503, "30")
        assert "The database takes no writes: its disk is full. Nothing was changed." in answer.content.decode()
        assert client.get(reverse("policies:list", args=["octo-org"])).status_code == 200

    def test_a_session_that_cannot_be_saved_is_the_same(self, client, monkeypatch):
        client.raise_request_exception = False
        client.force_login(
            factories.member(factories.organization(), Role.OWNER),
            backend="policystore.accounts.access.RoleBackend",
        )
        monkeypatch.setattr("policystore.accounts.sessions.SessionStore.save", lambda *given, **more: full())
        monkeypatch.setattr("policystore.accounts.sessions.SessionStore.flush", lambda *given, **more: full())
        answer = client.post(reverse("sign-out"))
        assert (answer.status_code, answer["Retry-After"]) == (503, "30")

    def test_systems_are_told_as_json(self, monkeypatch):
        bearer = {"authorization": f"Bearer {factories.management_key(factories.organization())}"}
        monkeypatch.setattr(policies, "create", full)
        answer = ask("POST", "/v1/github/octo-org/actions/policies/ci", bearer, {"egress_policy": "audit"})
        assert (answer.status, answer.headers["retry-after"]) == (503, "30")
        assert answer.json()["error"] == "no_writes"
        assert "its disk is full" in answer.json()["message"]

    def test_other_failures_stay_what_they_were(self, client, monkeypatch):
        def broken(**given):
            raise IntegrityError("a mistake of the store's own")

        client.force_login(
            factories.member(factories.organization()), backend="policystore.accounts.access.RoleBackend"
        )
        client.raise_request_exception = False
        monkeypatch.setattr(policies, "create", broken)
        form = {"name": "new", "text": factories.TEXT, "description": ""}
        assert client.post(reverse("policies:new", args=["octo-org"]), form).status_code == 500
        assert issubclass(IntegrityError, DatabaseError)


@contextmanager
def mounted(folder):
    """A disk of 64 MiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path):
    """A disk of the test's own."""
    with mounted(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
def disk_for_others():
    """The same, in a place that other users of this machine may look into."""
    with tempfile.TemporaryDirectory(prefix="policystore-disk-") as parent:
        os.chmod(parent, 0o755)
        with mounted(Path(parent) / "disk") as folder:
            yield folder


def fill(folder):
    """Take all the room that is left."""
    with open(folder / "other-things", "ab", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            with pytest.raises(OSError, match="No space left on device"):
                write_forever(file, size)


def write_forever(file, size):
    while True:
        file.write(b"x" * size)


def fetch(address, key, job, **more):
    asked = {"workflow": "ci.yml", "run_id": "1", "correlationId": job}
    said = {"authorization": f"vm-api-key {key}", **more}
    return httpx.get(f"{address}{FETCH}", params=asked, headers=said, timeout=60)


def save(address, key, name, **more):
    body = {"egress_policy": "block", "allowed_endpoints": ENDPOINTS}
    said = {"authorization": f"Bearer {key}", **more}
    target = f"{address}/v1/github/octo-org/actions/policies/{name}"
    return httpx.post(target, json=body, headers=said, timeout=60)


def save_until_full(address, key, **said):
    """Changes until ten were refused; what the database's files had left over takes some more at first."""
    answers, refused = [], []
    for number in range(MOST_CHANGES):
        answers.append(save(address, key, f"full-{number}", **said))
        refused += [answers[-1]] if answers[-1].status_code != 200 else []
        if len(refused) == 10:
            return answers, refused
    raise AssertionError("the disk was never full")


def why_not_ready(address, **said):
    answer = httpx.get(f"{address}/readyz", headers=said, timeout=60)
    return {check["name"]: check["message"] for check in answer.json()["checks"] if not check["ok"]}


def served(store, key, **said):
    """Jobs that ask while the disk is full get their policy."""
    answers = [fetch(store.address, key, f"full-{number}", **said) for number in range(JOBS)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["policy_name"] for answer in answers} == {"default"}


def nothing_is_lost(database, acknowledged):
    """What jobs fetched while the disk was full is recorded once there is room, and what was acknowledged is there."""
    recorded = "SELECT count(*) FROM runners_jobrun WHERE correlation_id LIKE 'full-%'"
    wait_until(lambda: one(database, recorded) == JOBS, "the record of all fetches")
    assert one(database, "SELECT count(*) FROM policies_policy WHERE name LIKE 'full-%'") == acknowledged
    events = "SELECT count(*) FROM audit_log_historyevent WHERE subject_name LIKE 'full-%'"
    assert one(database, events) == acknowledged


def one(database, statement):
    return database.execute(statement).fetchone()[0]


def token_of(page):
    return re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text).group(1)


@pytest.mark.browser
@pytest.mark.needs_root
def test_a_full_disk_refuses_changes_and_no_runner_and_all_is_well_once_there_is_room(disk, quickstart, tmp_path):
    (tmp_path / "store").symlink_to(disk)
    local = {"POLICYSTORE_MODE": "local", "POLICYSTORE_DATA_DIR": str(disk), "DATABASE_URL": ""}
    in_production.migrated(disk)
    keys = json.loads(in_production.manage(local, "shell", "--no-imports", "-c", SEED))
    store = quickstart().serving()
    with httpx.Client(follow_redirects=True, timeout=60) as browser:
        sign_in(browser, store.link)
        new = f"{store.address}/organizations/octo-org/policy-store/new/"
        form = {"name": "by-hand", "description": "", "text": factories.TEXT + "# " + "x" * 20_000}
        form["csrfmiddlewaretoken"] = token_of(browser.get(new))
        wait_until(lambda: why_not_ready(store.address) == {}, "a heartbeat of the worker")
        fill(disk)

        saved, refused = save_until_full(store.address, keys["management"])
        assert {answer.status_code for answer in refused} == {503}
        assert refused[-1].headers["Retry-After"] == "30"
        assert refused[-1].json()["error"] == "no_writes"
        page = browser.post(new, data=form, headers={"referer": new})
        assert page.status_code == 503
        assert "The database takes no writes: its disk " in page.text
        assert browser.get(f"{store.address}/organizations/octo-org/policy-store/").status_code == 200
        assert why_not_ready(store.address)["writes"].startswith("The database's disk has only")
        served(store, keys["key"])

        (disk / "other-things").unlink()
        assert save(store.address, keys["management"], "after").status_code == 200
        assert browser.post(new, data=form, headers={"referer": new}).status_code == 200
        wait_until(lambda: why_not_ready(store.address) == {}, "being ready again")
    acknowledged = sum(answer.status_code == 200 for answer in saved)
    with closing(sqlite3.connect(disk / "policystore.sqlite3")) as database:
        nothing_is_lost(database, acknowledged)
        assert one(database, "PRAGMA integrity_check") == "ok"
    assert store.stop() == 0


@pytest.fixture
def full_disk_of_postgresql(disk_for_others, monkeypatch):
    """Where a PostgreSQL may keep a database: a disk of 64 MiB, as the name of a tablespace.

    The server is the test's own: one of whose disks is full makes no new database for other tests.
    """
    with postgresql() as server:
        monkeypatch.setenv("DATABASE_URL", server.get_uri())
        with psycopg.connect(server.get_uri(), autocommit=True) as database:
            data = os.stat(database.execute("SHOW data_directory").fetchone()[0])
            space = disk_for_others / "space"
            space.mkdir()
            os.chown(space, data.st_uid, data.st_gid)
            database.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(space)))
        yield "small"


@pytest.mark.production
@pytest.mark.needs_root
def test_a_full_disk_of_postgresql_refuses_changes_and_no_runner_and_all_is_well_once_there_is_room(
    disk_for_others, full_disk_of_postgresql
):
    host = {"host": in_production.HOST}
    with in_production.database(tablespace=full_disk_of_postgresql) as settings:
        keys = in_production.prepare(settings)
        store = in_production.Production(settings)
        try:
            assert fetch(store.address, keys["key"], "before", **host).status_code == 200
            # From here on, a heartbeat has a place that it can be written to.
            assert "writes" not in why_not_ready(store.address, **host)
            fill(disk_for_others)

            saved, refused = save_until_full(store.address, keys["management"], **host)
            assert {answer.status_code for answer in refused} == {503}
            assert refused[-1].json()["error"] == "no_writes"
            assert "its disk is full" in refused[-1].json()["message"]
            served(store, keys["key"], **host)

            def told():
                # The database tidies up by itself, and gives some of its room back.
                fill(disk_for_others)
                return why_not_ready(store.address, **host).get("writes")

            assert wait_until(told, "a finding") == "The database takes no writes: its disk is full."

            (disk_for_others / "other-things").unlink()
            assert save(store.address, keys["management"], "after", **host).status_code == 200
            assert "writes" not in why_not_ready(store.address, **host)
            acknowledged = sum(answer.status_code == 200 for answer in saved)
            with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as database:
                nothing_is_lost(database, acknowledged)
            in_production.manage(settings, "verify_history")
        finally:
            store.end()


@pytest.mark.production
def test_a_postgresql_that_became_read_only_refuses_changes_and_no_runner():
    with in_production.database() as settings:
        keys = in_production.prepare(settings)
        store = in_production.Production(settings)
        host = {"host": in_production.HOST}
        name = psycopg.conninfo.conninfo_to_dict(settings["DATABASE_URL"])["dbname"]
        try:
            assert save(store.address, keys["management"], "before", **host).status_code == 200
            read_only(settings, name, "on")
            refused = wait_until(lambda: refusal(store, keys, host), "a refusal")
            assert (refused.json()["error"], refused.headers["Retry-After"]) == ("no_writes", "30")
            assert "it is read-only" in refused.json()["message"]
            answers = [fetch(store.address, keys["key"], f"full-{number}", **host) for number in range(20)]
            assert {answer.status_code for answer in answers} == {200}
            assert why_not_ready(store.address)["writes"] == "The database takes no writes: it is read-only."

            read_only(settings, name, "off")
            wait_until(lambda: save(store.address, keys["management"], "after", **host).status_code == 200, "a change")
            assert set(why_not_ready(store.address)) == {"worker"}
            with psycopg.connect(settings["DATABASE_URL"]) as database:
                recorded = "SELECT count(*) FROM runners_jobrun WHERE correlation_id LIKE 'full-%'"
                wait_until(lambda: database.execute(recorded).fetchone() == (20,), "the record of all fetches")
        finally:
            store.end()


def refusal(store, keys, host):
    answer = save(store.address, keys["management"], f"refused-{time.monotonic_ns()}", **host)
    return answer if answer.status_code == 503 and answer.json()["error"] == "no_writes" else None


def read_only(settings, name, value):
    """Let the database take no writes, or take them again; connections are made anew."""
    with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as database:
        database.execute("SET default_transaction_read_only = off")
        database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            [name],
        )
