"""`manage.py quickstart` as a person at a terminal meets it: real processes, real sockets."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from django.core.management import CommandError, call_command

from policystore.operations.processes import StopRequest, run_together
from tests.both_databases import clean_environment
from tests.operations.production import migrated
from tests.operations.running import ROOT, WAIT_SECONDS, Quickstart, alive, children, free_port, sign_in, wait_until

pytestmark = pytest.mark.browser

DATABASE = "policystore.sqlite3"


def rows(folder, statement):
    with sqlite3.connect(folder / DATABASE) as database:
        return database.execute(statement).fetchall()


def nobody_left(process_ids):
    wait_until(lambda: not any(alive(process_id) for process_id in process_ids), "the end of every process")


def ends_when_asked(store, stop, number):
    """A signal ends all processes of a running store, and nothing listens any more."""
    # gunicorn and Granian, each with two processes of its own, the one that records fetches, and the worker.
    wait_until(lambda: len(store.family()) == 8, "the start of all processes")
    family = store.family()
    stop(store.process.pid, number)
    assert store.wait() == 0
    assert store.said.endswith("Stopped.\n")
    assert not any(alive(process_id) for process_id in family)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{store.port}/v1")


def part(store, word):
    """The process that quickstart started with this word in its command."""
    return next(
        process_id
        for process_id in children(store.process.pid)
        if word in Path(f"/proc/{process_id}/cmdline").read_text().split("\0")
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A running store of octo-org, for tests that leave it as it is; `browser` is of its first administrator."""
    folder = tmp_path_factory.mktemp("stores") / "store"
    migrated(folder)
    options = ("--no-demo", "--organization", "octo-org", "--name", "store.example")
    running = Quickstart(folder, *options)
    try:
        running.serving()
        with httpx.Client(follow_redirects=True, timeout=60) as running.browser:
            running.first_page = sign_in(running.browser, running.link)
            yield running
    finally:
        running.end()


def test_a_store_keeps_its_data_and_prints_a_link_until_someone_has_signed_in(tmp_path):
    """Three starts: on nothing at all, after nobody used the link, and after somebody did."""
    policies = "SELECT id, name, version FROM policies_policy ORDER BY id"
    with ExitStack() as started:

        def start(**options):
            process = Quickstart(tmp_path / "store", **options)
            started.callback(process.end)
            return process.serving()

        first = start()
        assert f"Database: {first.data / DATABASE}\n" in first.said
        assert "Loaded the demo organization demo-org." in first.said
        assert first.address == f"http://127.0.0.1:{first.port}"
        modes = (first.data.stat().st_mode & 0o777, (first.data / "secret-key").stat().st_mode & 0o777)
        assert modes == (0o700, 0o600)
        assert rows(first.data, "SELECT 1 FROM accounts_user WHERE password <> '' AND password NOT LIKE '!%'") == []
        before = rows(first.data, policies)
        ends_when_asked(first, os.kill, signal.SIGTERM)

        second = start(port=first.port)
        assert "Loaded the demo" not in second.said
        assert second.link != first.link
        browser = started.enter_context(httpx.Client(follow_redirects=True))
        assert sign_in(browser, first.link).status_code == 410
        page = sign_in(browser, second.link)
        assert (page.status_code, page.url.path) == (200, "/organizations/demo-org/policy-store/")
        assert "org-default" in page.text
        with httpx.Client(follow_redirects=True) as another:
            assert sign_in(another, second.link).status_code == 410
            assert another.get(second.address).url.path == "/sign-in/"
        ends_when_asked(second, os.kill, signal.SIGHUP)

        third = start(port=first.port)
        assert third.link is None
        assert "manage.py sign_in_link" in third.said
        assert rows(third.data, policies) == before
        # The session, signed with the store's own secret, is still good.
        assert browser.get(third.address).url.path == "/organizations/demo-org/policy-store/"


def test_no_demo_starts_with_an_organization_of_the_given_name(store):
    assert rows(store.data, "SELECT login FROM inventory_organization") == [("octo-org",)]
    assert rows(store.data, "SELECT count(*) FROM policies_policy") == [(0,)]
    assert store.first_page.url.path == "/organizations/octo-org/policy-store/"


def test_it_answers_to_its_own_names_only(store):
    for host, status in (("store.example", 200), ("localhost", 200), ("evil.example", 400)):
        assert httpx.get(f"{store.address}/sign-in/", headers={"host": host}).status_code == status, host


def start_and_wait(folder, *options, command="quickstart", **environment):
    return subprocess.run(
        [sys.executable, "manage.py", command, *options],
        cwd=ROOT,
        env={**clean_environment(), "POLICYSTORE_DATA_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--port", "0"), "“0” is not a valid port. Choose one from 1 to 65535, for example --port 8001."),
        (("--port", "65536"), "“65536” is not a valid port. Choose one from 1 to 65535, for example --port 8001."),
        (("--fetch-port", "0"), "“0” is not a valid port. Choose one from 1 to 65535, for example --fetch-port 8001."),
        (("--port", "8123", "--fetch-port", "8123"), "--port and --fetch-port are both “8123”."),
        (("--host", "192.0.2.1"), "Cannot listen on 192.0.2.1:8000"),
    ],
)
def test_it_refuses_ports_and_addresses_that_it_cannot_serve_on(monkeypatch, options, says):
    # In this process the signals are pytest's.
    monkeypatch.setattr(StopRequest, "listen", lambda self: None)
    if "--port" not in options and "--host" not in options:
        options = (*options, "--port", str(free_port()))
    with pytest.raises(CommandError, match=f"^{re.escape(says)}"):
        call_command("quickstart", *options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--no-demo", "--organization", "no/slash"), "--organization: "),
        (("--tls", "--no-demo", "--name", "bücher.example"), "No certificate can be made: 'bücher.example' is"),
    ],
)
def test_it_refuses_names_in_one_line(tmp_path, options, says):
    migrated(tmp_path / "store")
    ended = start_and_wait(tmp_path / "store", *options, "--port", str(free_port()))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"CommandError: {says}")
    assert len(ended.stderr.splitlines()) == 1


@contextmanager
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


def test_a_port_in_use_is_reported_in_one_line_before_anything_is_created(tmp_path):
    with taken_port() as port:
        ended = start_and_wait(tmp_path / "store", "--port", str(free_port()), "--fetch-port", port)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"CommandError: Cannot listen on 127.0.0.1:{port} ([Errno 98] Address already in use). "
        "Choose another port with --fetch-port.\n"
    )
    assert not (tmp_path / "store" / DATABASE).exists()


def test_a_port_in_use_for_pages_is_reported_too(monkeypatch):
    monkeypatch.setattr(StopRequest, "listen", lambda self: None)
    with taken_port() as port, pytest.raises(CommandError) as refused:
        call_command("quickstart", "--port", port, "--fetch-port", str(free_port()))
    assert str(refused.value) == (
        f"Cannot listen on 127.0.0.1:{port} ([Errno 98] Address already in use). Choose another port with --port."
    )


def test_a_fetch_process_whose_port_is_in_use_reports_it_in_one_line(tmp_path):
    with taken_port() as port:
        ended = start_and_wait(tmp_path / "store", "--port", port, command="fetch")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"CommandError: Cannot listen on 127.0.0.1:{port} ([Errno 98] Address already in use). "
        "Choose another port with --port.\n"
    )


def key_and_script(store):
    """A runner key of octo-org and its installation script, from the pages."""
    page = f"{store.address}/organizations/octo-org/settings/harden-runner-installation/"
    script = store.browser.get(f"{page}job-hooks/install-job-hooks.sh").text
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', store.browser.get(page).text).group(1)
    form = {"kind": "vm", "slot": "primary", "confirmed": "on", "csrfmiddlewaretoken": token}
    answer = store.browser.post(f"{page}regenerate/", data=form, headers={"referer": page})
    return re.search(r"ps_vm_\w{30,}", answer.text).group(), script


def test_the_addresses_it_prints_and_shows_are_those_that_answer(store):
    assert store.fetch_address == f"http://127.0.0.1:{store.fetch_port}"
    assert f"  STEP_API={store.fetch_address}/v1\n  STEP_TELEMETRY_URL={store.address}/v1\n" in store.said
    key, script = key_and_script(store)
    assert f"export STEP_API='{store.fetch_address}/v1'\n" in script
    assert f"export STEP_TELEMETRY_URL='{store.address}/v1'\n" in script
    asked = "/v1/github/octo-org/app/actions/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=1"
    for base in (store.fetch_address, store.address):
        answer = httpx.get(f"{base}{asked}", headers={"authorization": f"vm-api-key {key}"})
        assert (answer.status_code, answer.json()["error"]) == (404, "no_policy")
        # The hooks look for the agent at STEP_API.
        answer = httpx.get(f"{base}/v1/harden-runner-agent/github/linux/single/releases/latest")
        assert (answer.status_code, answer.json()["error"]) == (404, "no_release")
    reported = "/v1/github/octo-org/app/actions/jobs/1/dns"
    assert httpx.post(f"{store.address}{reported}", json={}).status_code != 421
    assert httpx.post(f"{store.fetch_address}{reported}", json={}).status_code == 421


def test_its_link_works_as_soon_as_it_is_printed_and_beside_silent_connections(quickstart):
    store = quickstart("--no-demo", "--host", "0.0.0.0").wait_for("Press Ctrl-C")
    # The first page takes longer than those after it.
    assert httpx.get(store.link.replace("0.0.0.0", "127.0.0.1"), timeout=WAIT_SECONDS).status_code == 200
    # Its own look at whether it listens is not logged as a problem.
    assert not [line for line in store.said.splitlines() if " WARNING " in line or " ERROR " in line]
    with ExitStack() as silent:
        for port in (store.port, store.fetch_port):
            for _ in range(50):
                silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        for port, path in ((store.port, "/sign-in/"), (store.port, "/v1"), (store.fetch_port, "/v1")):
            for _ in range(5):
                # An idle machine takes milliseconds. Threads that waited for the silent ones would take half a minute.
                answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=15)
                assert answer.status_code == 200, (port, path)
    # A terminal signals the whole foreground group on Ctrl-C; what quickstart started is not in it.
    ends_when_asked(store, os.killpg, signal.SIGINT)


def test_it_is_not_for_production(tmp_path):
    ended = start_and_wait(tmp_path, POLICYSTORE_MODE="production")
    assert ended.returncode == 1
    assert ended.stderr.startswith("policystore: SECRET_KEY: is not set")


def test_a_request_to_stop_while_it_is_starting_is_heard(quickstart):
    store = quickstart().wait_for("Database:")
    assert store.stop(signal.SIGINT) == 0
    assert store.family() == []


def test_killing_it_outright_ends_what_it_started(quickstart):
    store = quickstart("--no-demo", "--host", "::1").serving()
    assert store.address == f"http://[::1]:{store.port}"
    family = store.family()
    assert store.stop(signal.SIGKILL) == -signal.SIGKILL
    nobody_left(family)


def test_killing_it_outright_right_after_its_start_ends_what_it_started(quickstart):
    store = quickstart("--no-demo").wait_for("Database:")
    family = wait_until(store.family, "the start of a process")
    store.stop(signal.SIGKILL)
    nobody_left(family)


def test_when_one_part_dies_all_stop_and_it_says_which(quickstart):
    store = quickstart("--no-demo", "--host", "127.0.0.2").serving()
    assert store.address == f"http://127.0.0.2:{store.port}"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{store.port}/v1")
    family = store.family()
    os.kill(part(store, "gunicorn"), signal.SIGKILL)
    assert store.wait() == 1
    assert "The web process ended unexpectedly (signal SIGKILL); the others were stopped too." in store.said
    nobody_left(family)


@pytest.mark.parametrize("name", ["web", "fetch", "worker"])
@pytest.mark.parametrize("is_up", [True, False])
def test_whichever_part_dies_the_others_are_stopped(tmp_path, name, is_up):
    """With small programs in place of the parts, of which one kills itself once it is up, or before."""
    ready = tmp_path / "ready"
    dies = f"while ! [ -e {ready} ]; do sleep 0.02; done; kill -KILL $$" if is_up else "kill -KILL $$"
    commands = {each: ["sh", "-c", dies if each == name else "exec sleep 600"] for each in ("web", "fetch", "worker")}
    started = set(children(os.getpid()))
    ended = run_together(
        commands,
        environment=os.environ,
        request=StopRequest(),
        is_up=lambda: is_up,
        on_ready=ready.touch,
    )
    assert ended == f"The {name} process ended unexpectedly (signal SIGKILL); the others were stopped too."
    assert ready.exists() == is_up
    assert set(children(os.getpid())) <= started


def test_one_web_process_that_dies_is_replaced(store):
    web = part(store, "gunicorn")
    one, other = children(web)
    os.kill(one, signal.SIGKILL)
    wait_until(lambda: len(set(children(web)) - {one, other}) == 1, "a new web process")
    assert httpx.get(f"{store.address}/v1").status_code == 200
