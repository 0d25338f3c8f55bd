"""More processes than the server allows connections: they take turns, and every fetch is answered."""

import os
import sys
from collections import Counter

import psycopg
import pytest

from policystore.db import connection_slots
from tests.both_databases import postgresql, restart
from tests.faults import clients
from tests.operations import production
from tests.operations.production import FetchProcess, Production, prepare
from tests.operations.running import Running, wait_until

REFUSED = [
    "connection failed: FATAL:  sorry, too many clients already",
    "connection failed: FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
    'FATAL:  too many connections for role "policystore"',
    'FATAL:  too many connections for database "policystore"',
    "FATAL:  no more connections allowed (max_client_conn)",
]
RESERVED = 3


@pytest.mark.parametrize("message", REFUSED)
def test_a_refused_connection_is_tried_again_until_there_is_one(message):
    attempts = []

    def attempt():
        attempts.append(1)
        if len(attempts) < 4:
            raise psycopg.OperationalError(message)
        return "a connection"

    assert connection_slots.connect(attempt, seconds=5) == "a connection"
    assert len(attempts) == 4


def test_it_gives_up_when_its_time_is_over_and_right_away_on_another_error():
    def refuse(message, attempts):
        def attempt():
            attempts.append(1)
            raise psycopg.OperationalError(message)

        return attempt

    refused, down = [], []
    with pytest.raises(psycopg.OperationalError):
        connection_slots.connect(refuse(REFUSED[0], refused), seconds=0.2)
    assert len(refused) > 1
    with pytest.raises(psycopg.OperationalError):
        connection_slots.connect(refuse("connection refused", down), seconds=5)
    assert len(down) == 1


@pytest.mark.parametrize(
    ("allowed", "used", "is_kept"), [(17, 8, True), (17, 9, False), (100, 50, True), (5, 5, False)]
)
def test_a_connection_is_kept_while_at_most_half_of_the_allowed_ones_are_used(allowed, used, is_kept):
    assert connection_slots.Slots(allowed, used, backend_pid=1).may_be_kept is is_kept


@pytest.fixture
def server():
    """Sets how many connections a PostgreSQL server of its own allows; yields that function, and its settings."""
    with postgresql() as own:
        before = os.environ["DATABASE_URL"]
        os.environ["DATABASE_URL"] = own.get_uri()

        def allow(connections):
            own.psql(f"ALTER SYSTEM SET max_connections = {connections + RESERVED};")
            own.psql(f"ALTER SYSTEM SET superuser_reserved_connections = {RESERVED};")
            restart(own)

        try:
            with production.database() as settings:
                # Superusers may have the reserved ones, too; the store is none.
                own.psql("CREATE ROLE store LOGIN; GRANT pg_read_all_data, pg_write_all_data TO store;")
                yield allow, settings
        finally:
            os.environ["DATABASE_URL"] = before


@pytest.mark.production
def test_every_fetch_is_answered_by_more_processes_than_there_are_connections(server, full, tell):
    allow, settings = server
    processes, allowed, fetches = (50, 17, 2_000) if full else (8, 6, 120)
    keys = prepare(settings)
    allow(allowed)
    as_store = {**settings, "DATABASE_URL": settings["DATABASE_URL"].replace("postgres:@", "store:@")}
    started = []
    try:
        fetch = FetchProcess(as_store, WEB_CONCURRENCY=str(processes), ACCESS_LOG="0")
        started.append(fetch)
        web = Production(as_store, WEB_CONCURRENCY="2", ACCESS_LOG="0")
        started.append(web)
        worker = Running([sys.executable, "manage.py", "work"], environment=as_store)
        started.append(worker)

        def fetching(number):
            answers = Counter()
            for job in range(number, fetches, 4):
                answer = clients.fetch(fetch.port, keys["key"], f"repository-{job}", job)
                answers[(answer.status, answer.remembered, answer.tries)] += 1
            return answers

        answers = sum(clients.together(4, fetching), Counter())
        by_status = Counter({status: 0 for status, *_ in answers})
        for (status, _, _), number in answers.items():
            by_status[status] += number
        assert by_status == {200: fetches}, answers
        recorded = "SELECT count(*) FROM runners_jobrun"

        def all_are_recorded():
            with psycopg.connect(settings["DATABASE_URL"]) as database:
                return database.execute(recorded).fetchone() == (fetches,)

        wait_until(all_are_recorded, "the record of every fetch")
        first = sum(number for (_, _, tries), number in answers.items() if tries == 1)
        tell(
            f"{processes} fetch processes, 2 web processes and a worker on {allowed} connections: {fetches:,} fetches, "
            f"{first:,} answered at the first try, {fetches - by_status[200]} without a policy"
        )
    finally:
        for process in started:
            process.end()
    assert "Traceback" not in worker.said, worker.said


@pytest.mark.production
def test_doctor_compares_processes_with_connections(server):
    allow, settings = server
    prepare(settings)
    allow(20)
    assert "allows 20 connections, and the store uses up to" in doctor(settings, WEB_CONCURRENCY="50")
    assert "allows 20 connections, enough" in doctor(settings, WEB_CONCURRENCY="1")


def doctor(settings, **more):
    """What doctor prints about connections."""
    process = Running([sys.executable, "manage.py", "doctor"], environment={**settings, **more})
    try:
        process.wait()
    finally:
        process.end()
    return next(line for line in process.said.splitlines() if "PostgreSQL allows" in line)
