"""A migration never holds up the runners of a store that is in use."""

from __future__ import annotations

import sys
import time

import psycopg
import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from policystore import schema_operations
from tests.faults import clients
from tests.operations.production import Production, database, manage, prepare
from tests.operations.running import wait_until

NEXT = {"DJANGO_SETTINGS_MODULE": "tests.operations.next_release.settings"}
MIGRATE = [sys.executable, "manage.py", "migrate", "--noinput"]


@pytest.fixture
def in_use():
    """A store of the test's own that serves runners: its settings, and a function that makes one fetch."""
    with database() as settings:
        key = prepare(settings)["key"]
        web = Production(settings, GUNICORN_LOG_LEVEL="critical")
        try:
            yield settings, lambda number: clients.fetch(web.port, key, "hello-world", number)
        finally:
            web.end()


def refused(fetch, *, until):
    """The answers that a runner would not have liked, out of all until this is so."""
    answers = []
    while not (done := until()) or len(answers) < 20:
        answers.append(fetch(len(answers)))
        assert done or len(answers) < 2_000
        time.sleep(0.05)
    return [a for a in answers if a.status != 200 or a.tries > 1 or a.remembered or a.seconds > clients.TIMEOUT_SECONDS]


@pytest.mark.production
def test_a_migration_that_must_wait_for_a_lock_tries_again_and_fetches_go_on(in_use, run):
    settings, fetch = in_use
    with psycopg.connect(settings["DATABASE_URL"], application_name="nightly-report") as reader:
        reader.execute("SELECT count(*) FROM policies_policy")
        migrate = run(MIGRATE, environment={**settings, **NEXT})
        assert refused(fetch, until=lambda: migrate.said.count("A lock is in the way") >= 2) == []
        assert "of nightly-report" in migrate.said
        assert migrate.process.poll() is None
    assert migrate.wait() == 0
    assert refused(fetch, until=lambda: True) == []
    with psycopg.connect(settings["DATABASE_URL"]) as after:
        assert after.execute("SELECT bool_or(of_next_release) FROM policies_policy").fetchone() == (False,)


@pytest.mark.production
def test_a_migration_that_never_gets_its_lock_says_who_holds_it(in_use, run):
    settings, _ = in_use
    with psycopg.connect(settings["DATABASE_URL"], application_name="nightly-report") as reader:
        reader.execute("SELECT count(*) FROM policies_policy")
        time.sleep(1.1)
        migrate = run([*MIGRATE, "--patience", "0"], environment={**settings, **NEXT})
        assert migrate.wait() == 1
    assert "CommandError: Others held locks for 0 s that a migration needs; there is a transaction open" in migrate.said
    assert "of nightly-report). What came before it is done; end what holds them and run this again." in migrate.said
    assert "Traceback" not in migrate.said
    manage({**settings, **NEXT}, "migrate", "--noinput")


@pytest.mark.production
def test_an_index_is_built_while_others_write_its_table(in_use, run):
    settings, fetch = in_use
    manage(settings, "migrate", "detections", "0001")
    with psycopg.connect(settings["DATABASE_URL"]) as writer, psycopg.connect(settings["DATABASE_URL"]) as other:
        writer.execute("UPDATE detections_detection SET host = host")
        other.autocommit = True
        migrate = run(MIGRATE, environment=settings)

        def waits():
            building = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%%' AND state = %s"
            return other.execute(building, ["active"]).fetchone()

        wait_until(waits, "building an index")
        with other.transaction():
            other.execute("LOCK TABLE detections_detection IN ROW EXCLUSIVE MODE NOWAIT")
        assert refused(fetch, until=lambda: True) == []
        writer.commit()
        assert migrate.wait() == 0
        valid = other.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'detection_newest_first'::regclass"
        ).fetchone()
        assert valid == (True,)


def ours():
    """The migrations that are made of operations that can be repeated."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    kinds = (schema_operations.AddIndex, schema_operations.RemoveIndex, schema_operations.LoosenKey)
    for key, migration in sorted(loader.disk_migrations.items()):
        if any(isinstance(operation, kinds) for operation in migration.operations):
            yield pytest.param(loader, key, id="-".join(key))


def again(loader, key):
    with connection.schema_editor(atomic=False) as editor:
        loader.disk_migrations[key].apply(loader.project_state(key, at_end=False), editor)


def indexes(table):
    with connection.cursor() as cursor:
        return set(connection.introspection.get_constraints(cursor, table))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("loader", "key"), list(ours()))
def test_a_migration_that_was_cut_off_is_run_again(loader, key):
    migration = loader.disk_migrations[key]
    assert not migration.atomic
    added = [part for part in migration.operations if isinstance(part, schema_operations.AddIndex)]
    tables = {f"{key[0]}_{part.model_name}" for part in migration.operations if hasattr(part, "model_name")}
    before = {table: indexes(table) for table in tables}
    # A later migration may have dropped some.
    kept = [part for part in added if any(part.index.name in names for names in before.values())]
    with connection.cursor() as cursor:
        for part in kept[-1:]:
            cursor.execute(f"DROP INDEX {connection.ops.quote_name(part.index.name)}")
    again(loader, key)
    again(loader, key)
    for later in (one for one in sorted(loader.disk_migrations) if one[0] == key[0] and one > key):
        # It may have dropped what this one builds.
        if not loader.disk_migrations[later].atomic:
            again(loader, later)
    assert {table: indexes(table) for table in tables} == before


@pytest.mark.django_db(transaction=True)
def test_a_key_that_is_loosened_loses_its_own_index_and_on_postgresql_its_check():
    loader, key = MigrationLoader(None, ignore_no_migrations=True), ("traffic", "0006_lighter_writes")
    states = loader.project_state(key), loader.project_state(key, at_end=False)
    with connection.schema_editor() as editor:
        for part in reversed(loader.disk_migrations[key].operations):
            part.database_backwards("traffic", editor, *states)
    assert of_keys("traffic_networkevent") == {"index", "foreign_key"}
    again(loader, key)
    again(loader, key)
    assert of_keys("traffic_networkevent") == (set() if connection.vendor == "postgresql" else {"foreign_key"})


def of_keys(table):
    """What the columns of a table that name its organization and its job run have for themselves."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table).values()
    keys = ["organization_id"], ["job_run_id"]
    return {kind for told in found if told["columns"] in keys for kind in ("index", "foreign_key") if told[kind]}


@pytest.mark.production
@pytest.mark.django_db(transaction=True)
def test_an_index_whose_build_was_cut_off_is_built_anew():
    loader, name = MigrationLoader(None, ignore_no_migrations=True), "detection_newest_first"
    valid = f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{name}'::regclass"
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")
        again(loader, ("detections", "0002_newest_first"))
        cursor.execute(valid)
        assert cursor.fetchone() == (True,)
