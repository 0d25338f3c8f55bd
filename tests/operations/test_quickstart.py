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
from ssl import create_default_context

import httpx
import pytest

from tests.both_databases import clean_environment
from tests.operations.running import ROOT, WAIT_SECONDS, alive, children, free_port, sign_in, wait_until

pytestmark = pytest.mark.browser

DATABASE = "policystore.sqlite3"


def rows(folder, statement):
    with sqlite3.connect(folder / DATABASE) as database:
        return database.execute(statement).fetchall()


def nobody_left(process_ids):
    wait_until(lambda: not any(alive(process_id) for process_id in process_ids), "the end of every process")


def part(store, word):
    """The process that quickstart started with this word in its command."""
    return next(
        process_id
        for process_id in children(store.process.pid)
        if word in Path(f"/proc/{process_id}/cmdline").read_text().split("\0")
    )


def test_a_first_start_makes_a_store_that_one_link_opens_once(quickstart):
    store = quickstart().serving()
    assert f"Database: {store.data / DATABASE}\n" in store.said
    assert "Loaded the demo organization demo-org." in store.said
    assert store.address == f"http://127.0.0.1:{store.port}"
    with httpx.Client(follow_redirects=True) as browser:
        page = sign_in(browser, store.link)
        assert (page.status_code, page.url.path) == (200, "/organizations/demo-org/policy-store/")
        assert "org-default" in page.text
    with httpx.Client(follow_redirects=True) as somebody_else:
        assert sign_in(somebody_else, store.link).status_code == 410
        assert somebody_else.get(store.address).url.path == "/sign-in/"


@pytest.mark.parametrize("options", [("--host", "0.0.0.0"), ("--tls",)], ids=["http", "https"])
def test_whoever_follows_what_it_prints_at_once_is_answered(quickstart, options):
    store = quickstart("--no-demo", *options).wait_for("Press Ctrl-C")
    authority = store.data / "tls" / "authority.pem"
    with httpx.Client(verify=create_default_context(cafile=authority) if options == ("--tls",) else True) as browser:
        assert browser.get(store.link.replace("0.0.0.0", "127.0.0.1")).status_code == 200
    # Looking whether it listens is nothing to complain of.
    assert not [line for line in store.said.splitlines() if " WARNING " in line or " ERROR " in line]


def test_a_second_start_keeps_all_data_and_prints_no_link_for_who_has_signed_in(quickstart):
    first = quickstart().serving()
    with httpx.Client(follow_redirects=True) as browser:
        sign_in(browser, first.link)
        first.stop()
        before = rows(first.data, "SELECT id, name, version FROM policies_policy ORDER BY id")
        second = quickstart(port=first.port).serving()
        assert second.link is None
        assert "manage.py sign_in_link" in second.said
        assert "Loaded the demo" not in second.said
        assert rows(second.data, "SELECT id, name, version FROM policies_policy ORDER BY id") == before
        # The session, signed with the store's own secret, lives on as well.
        assert browser.get(second.address).url.path == "/organizations/demo-org/policy-store/"


def test_a_link_that_nobody_used_is_replaced_at_the_next_start(quickstart):
    first = quickstart("--no-demo").serving()
    first.stop()
    second = quickstart("--no-demo", port=first.port).serving()
    assert second.link != first.link
    with httpx.Client(follow_redirects=True) as browser:
        assert sign_in(browser, first.link).status_code == 410
        assert sign_in(browser, second.link).status_code == 200


def test_no_demo_starts_with_an_organization_of_ones_own(quickstart):
    store = quickstart("--no-demo", "--organization", "octo-org").serving()
    assert rows(store.data, "SELECT login FROM inventory_organization") == [("octo-org",)]
    assert rows(store.data, "SELECT count(*) FROM policies_policy") == [(0,)]
    with httpx.Client(follow_redirects=True) as browser:
        assert sign_in(browser, store.link).url.path == "/organizations/octo-org/policy-store/"


def test_only_its_owner_reads_the_store_and_its_secret(quickstart):
    store = quickstart("--no-demo").serving()
    assert (store.data.stat().st_mode & 0o777, (store.data / "secret-key").stat().st_mode & 0o777) == (0o700, 0o600)
    assert rows(store.data, "SELECT password FROM accounts_user")[0][0].startswith("!") or not rows(
        store.data, "SELECT 1 FROM accounts_user WHERE password <> ''"
    )


def test_host_and_port_choose_where_it_serves(quickstart):
    store = quickstart("--no-demo", "--host", "127.0.0.2").serving()
    assert store.address == f"http://127.0.0.2:{store.port}"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{store.port}/v1")


def test_it_serves_on_ipv6(quickstart):
    store = quickstart("--no-demo", "--host", "::1").serving()
    assert store.address == f"http://[::1]:{store.port}"


def test_it_answers_to_its_own_names_only(quickstart):
    store = quickstart("--no-demo", "--name", "store.example").serving()
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
        (("--no-demo", "--organization", "no/slash"), "--organization: "),
        (("--tls", "--no-demo", "--name", "bücher.example"), "No certificate can be made: 'bücher.example' is"),
    ],
)
def test_it_refuses_what_cannot_be_in_one_line(tmp_path, options, says):
    if "--port" not in options and "--host" not in options:
        options = (*options, "--port", str(free_port()))
    ended = start_and_wait(tmp_path, *options)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"CommandError: {says}")
    assert len(ended.stderr.splitlines()) == 1


@contextmanager
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield str(taken.getsockname()[1])


@pytest.mark.parametrize("option", ["--port", "--fetch-port"])
def test_a_port_in_use_is_reported_in_one_line_before_anything_is_created(tmp_path, option):
    other = {"--port": "--fetch-port", "--fetch-port": "--port"}[option]
    with taken_port() as port:
        ended = start_and_wait(tmp_path / "store", option, port, other, str(free_port()))
    assert ended.returncode == 1
    assert ended.stderr == (
        f"CommandError: Cannot listen on 127.0.0.1:{port} ([Errno 98] Address already in use). "
        f"Choose another port with {option}.\n"
    )
    assert not (tmp_path / "store" / DATABASE).exists()


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
    with httpx.Client(follow_redirects=True, timeout=60) as browser:
        sign_in(browser, store.link)
        page = f"{store.address}/organizations/octo-org/settings/harden-runner-installation/"
        script = browser.get(f"{page}job-hooks/install-job-hooks.sh").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get(page).text).group(1)
        form = {"kind": "vm", "slot": "primary", "confirmed": "on", "csrfmiddlewaretoken": token}
        answer = browser.post(f"{page}regenerate/", data=form, headers={"referer": page})
    return re.search(r"ps_vm_\w{30,}", answer.text).group(), script


def test_the_addresses_it_prints_and_shows_are_those_that_answer(quickstart):
    store = quickstart("--no-demo", "--organization", "octo-org").serving()
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


def test_silent_connections_stop_neither_fetches_nor_pages(quickstart):
    store = quickstart("--no-demo", "--host", "0.0.0.0").wait_for("Press Ctrl-C")
    # The first page takes longer than those after it.
    assert httpx.get(f"http://127.0.0.1:{store.port}/sign-in/", timeout=WAIT_SECONDS).status_code == 200
    with ExitStack() as silent:
        for port in (store.port, store.fetch_port):
            for _ in range(50):
                silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        for port, path in ((store.port, "/sign-in/"), (store.port, "/v1"), (store.fetch_port, "/v1")):
            for _ in range(5):
                # An idle machine takes milliseconds. Threads that waited for the silent ones would take half a minute.
                answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=15)
                assert answer.status_code == 200, (port, path)


def test_it_is_not_for_production(tmp_path):
    ended = start_and_wait(tmp_path, POLICYSTORE_MODE="production")
    assert ended.returncode == 1
    assert ended.stderr.startswith("policystore: SECRET_KEY: is not set")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_ends_all_processes(quickstart, number):
    store = quickstart("--no-demo").serving()
    family = store.family()
    # gunicorn and Granian, each with two processes of its own, and the worker.
    assert len(family) == 7
    assert store.stop(number) == 0
    assert store.said.endswith("Stopped.\n")
    assert not any(alive(process_id) for process_id in family)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{store.address}/v1")


def test_ctrl_c_in_a_terminal_reaches_it_once(quickstart):
    store = quickstart("--no-demo").serving()
    family = store.family()
    # A terminal signals the whole foreground group; what quickstart started is not in it.
    os.killpg(store.process.pid, signal.SIGINT)
    assert store.wait() == 0
    assert not any(alive(process_id) for process_id in family)


def test_a_request_to_stop_while_it_is_starting_is_heard(quickstart):
    store = quickstart().wait_for("Database:")
    assert store.stop(signal.SIGINT) == 0
    assert store.family() == []


def test_killing_it_outright_ends_what_it_started(quickstart):
    store = quickstart("--no-demo").serving()
    family = store.family()
    assert store.stop(signal.SIGKILL) == -signal.SIGKILL
    nobody_left(family)


def test_killing_it_outright_right_after_its_start_ends_what_it_started(quickstart):
    store = quickstart("--no-demo").wait_for("Database:")
    family = wait_until(store.family, "the start of a process")
    store.stop(signal.SIGKILL)
    nobody_left(family)


@pytest.mark.parametrize(("name", "word"), [("web", "gunicorn"), ("fetch", "fetch"), ("worker", "work")])
def test_when_one_part_dies_all_stop_and_it_says_which(quickstart, name, word):
    store = quickstart("--no-demo").serving()
    family = store.family()
    os.kill(part(store, word), signal.SIGKILL)
    assert store.wait() == 1
    assert f"The {name} process ended by itself (signal SIGKILL); the others were stopped too." in store.said
    nobody_left(family)


def test_one_web_process_that_dies_is_replaced(quickstart):
    store = quickstart("--no-demo").serving()
    web = part(store, "gunicorn")
    one, other = children(web)
    os.kill(one, signal.SIGKILL)
    wait_until(lambda: len(set(children(web)) - {one, other}) == 1, "a new web process")
    assert httpx.get(f"{store.address}/v1").status_code == 200
