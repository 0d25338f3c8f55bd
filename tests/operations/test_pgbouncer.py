"""The whole store behind Debian's PgBouncer in transaction mode, which lends a connection for one transaction only."""

import json
import sys
import threading
from collections import Counter
from itertools import count

import httpx
import psycopg
import pytest

from tests.faults import clients
from tests.operations import pgbouncer, production
from tests.operations.production import HOST, FetchProcess, Production, manage, prepare, seed
from tests.operations.running import Running, wait_until

pytestmark = [pytest.mark.production, pytest.mark.needs_pgbouncer]

SIGN_IN = """
import json
from tests.benchmarks.policy_seeds import signed_in
print(json.dumps(signed_in(["octo-org"])))
"""
PAGES = [f"/organizations/octo-org/{page}/" for page in ("policy-store", "runs", "insights", "baseline", "coverage")]
FETCHERS, WRITERS = 6, 2
SLOW = {"DJANGO_SETTINGS_MODULE": "tests.operations.slow_release.settings"}


@pytest.fixture(scope="module")
def bouncer():
    with pgbouncer.running() as through:
        yield through


@pytest.fixture
def settings(bouncer):
    """The settings of a store with an empty database of its own behind PgBouncer."""
    with production.database() as direct:
        yield {**direct, "DATABASE_URL": bouncer(direct["DATABASE_URL"]), "DIRECT": direct["DATABASE_URL"]}


@pytest.fixture
def start():
    """Starts processes that end with the test."""
    started = []

    def start(kind, *arguments, **more):
        started.append(kind(*arguments, **more))
        return started[-1]

    yield start
    for process in started:
        process.end()


def rows(settings, statement):
    """What the database holds, read directly."""
    with psycopg.connect(settings["DIRECT"]) as database:
        return database.execute(statement).fetchall()


def test_fetches_writes_pages_and_the_worker_all_succeed(settings, start, full, tell):
    fetches, writes = (10_000, 1_000) if full else (400, 40)
    keys = prepare(settings)
    cookies = json.loads(manage(settings, "shell", "--no-imports", "-c", SIGN_IN))
    web = start(Production, settings, WEB_CONCURRENCY="2", ACCESS_LOG="0", TRUST_FORWARDED_HEADERS="1")
    fetch = start(FetchProcess, settings, WEB_CONCURRENCY="2", ACCESS_LOG="0")
    worker = start(Running, [sys.executable, "manage.py", "work"], environment=settings)
    failures, done, is_over = Counter(), Counter(), threading.Event()

    def fetching(number):
        for job in range(number, fetches, FETCHERS):
            path = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy"
            path += f"?workflow=ci.yml&run_id={job}&correlationId=job-{job}"
            answer = clients.call(fetch.port, "GET", path, {"Authorization": f"vm-api-key {keys['key']}"}, timeout=10)
            is_good = answer.status == 200 and not answer.remembered
            (done if is_good else failures)["fetch" if is_good else f"fetch {answer.status} {answer.remembered}"] += 1

    def writing(number):
        manager = clients.Manager(web.port, keys["management"])
        for step in range(number, writes, WRITERS):
            answer = manager.save(f"policy-{number}", ["github.com:443", f"s{step}.example.com:443"])
            if answer.status == 200:
                done["write"] += 1
            else:
                failures[f"write {answer.status} {answer.body[:200]}"] += 1

    def looking(_):
        with httpx.Client(cookies=cookies, timeout=30, headers={"host": HOST, "x-forwarded-proto": "https"}) as client:
            for number in count():
                page = client.get(f"{web.address}{PAGES[number % len(PAGES)]}")
                (done if page.status_code == 200 else failures)[f"page {page.status_code}"] += 1
                if is_over.is_set():
                    return

    def telling(_):
        for number in count():
            told = [{"type": "dns", "domainName": "github.com.", "ipAddress": "192.0.2.1", "delivery": str(number)}]
            headers = {"Authorization": f"vm-api-key {keys['key']}", "Content-Type": "application/json"}
            path = "/v1/github/octo-org/hello-world/actions/jobs/job-0/events"
            answer = clients.call(web.port, "POST", path, headers, json.dumps(told), timeout=10)
            (done if answer.status == 200 else failures)[f"telemetry {answer.status}"] += 1
            # A job may send 20 batches a minute.
            if is_over.wait(3.5):
                return

    beside = [threading.Thread(target=work, args=(0,)) for work in (looking, telling)]
    inner = [threading.Thread(target=fetching, args=(number,)) for number in range(FETCHERS)]
    inner += [threading.Thread(target=writing, args=(number,)) for number in range(WRITERS)]
    for thread in (*beside, *inner):
        thread.start()
    for thread in inner:
        thread.join()
    is_over.set()
    for thread in beside:
        thread.join()

    assert not failures
    assert (done["fetch"], done["write"]) == (fetches, writes)
    recorded = "SELECT count(*) FROM runners_jobrun WHERE fetched_at IS NOT NULL"
    wait_until(lambda: rows(settings, recorded) == [(fetches,)], "the record of every fetch")
    assert rows(settings, "SELECT sum(version) FROM policies_policy WHERE name LIKE 'policy-%'") == [(writes,)]
    ready = wait_until(lambda: web.get("/readyz").json()["status"] == "ready", "readiness, with a worker")
    assert ready
    manage(settings, "verify_history")
    for process in (web, fetch, worker):
        process.stop()
        assert "Traceback" not in process.said
    tell(
        f"PgBouncer 1.18 in transaction mode: {done['fetch']:,} fetches, {done['write']:,} writes, "
        f"{done['page 200']:,} pages, {done['telemetry 200']:,} batches and the worker: {failures.total()} failures"
    )


def test_commands_work_through_it(settings, bouncer, tmp_path):
    manage(settings, "migrate", "--noinput")
    seed(settings)
    manage(settings, "prune")
    manage(settings, "backup", str(tmp_path / "store.backup"))
    with production.database() as other:
        restored = {**other, "DATABASE_URL": bouncer(other["DATABASE_URL"]), "DIRECT": other["DATABASE_URL"]}
        manage(restored, "restore", str(tmp_path / "store.backup"))
        manage(restored, "migrate", "--noinput")
        manage(restored, "verify_history")
        policies = "SELECT name, version FROM policies_policy"
        assert rows(restored, policies) == rows(settings, policies) != []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "PgBouncer in transaction mode. To have the size of its pool checked, add"),
        ({"pool_mode": "session"}, "PgBouncer in session mode"),
        ({"stats_users": "postgres"}, "PgBouncer 1.18.0 in transaction mode with a pool of 10 connections."),
        (
            {"stats_users": "postgres", "pool_size": 2},
            "a pool of 2 connections; set default_pool_size to at least",
        ),
        ({"pool_mode": "statement"}, "set pool_mode = transaction in PgBouncer"),
    ],
)
def test_doctor_names_it_and_its_mode_and_says_what_will_not_work(options, said):
    with pgbouncer.running(**options) as through, production.database() as direct:
        assert said in doctor({**direct, "DATABASE_URL": through(direct["DATABASE_URL"])})


def test_doctor_says_which_option_it_refuses(settings):
    refused = f"{settings['DATABASE_URL']}?options=-cstatement_timeout%3D1"
    assert "remove `options` from DATABASE_URL" in doctor({**settings, "DATABASE_URL": refused})


def test_doctor_does_not_name_it_where_the_store_is_connected_directly(settings):
    assert "PgBouncer" not in doctor({**settings, "DATABASE_URL": settings["DIRECT"]})


def doctor(settings):
    """What doctor prints; without tables it finds problems, so its exit code says nothing."""
    code = "from policystore.operations.doctor import database\nfound = database.it_answers()\n"
    code += "print(found.message)\nprint(None if found.is_problem else database.connection_pooler())"
    return manage(settings, "shell", "--no-imports", "-c", code)


def test_two_migrations_take_turns_and_leave_no_setting_behind(settings, start, tmp_path):
    goes_on = tmp_path / "goes-on"
    environment = {**settings, **SLOW, "SLOW_RELEASE_GOES_ON": str(goes_on)}
    command = [sys.executable, "manage.py", "migrate", "--noinput", "slow_release"]
    first = start(Running, command, environment=environment).wait_for("Applying slow_release.0001_initial")
    second = start(Running, command, environment=environment).wait_for("Another migrate is at work")
    goes_on.touch()
    assert (first.wait(), second.wait()) == (0, 0)
    assert "No migrations to apply" in second.said
    # PgBouncer hands the same connections to others.
    with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as connection:
        for _ in range(5):
            assert connection.execute("SHOW lock_timeout", prepare=False).fetchone() == ("0",)
            # Tests beside this one lock in databases of their own.
            locks = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            locks += " WHERE locktype = 'advisory' AND datname = current_database()"
            assert connection.execute(locks, prepare=False).fetchone() == (0,)
