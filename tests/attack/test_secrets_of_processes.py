"""A store in production that uses a secret of each kind: neither a dump nor the log of any of its processes has one."""

from __future__ import annotations

import re
import ssl
import sys
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from psycopg import sql

from policystore.integrations.models import OutboxMessage
from policystore.operations import certificates
from tests.accounts.test_github_sign_in import SECRET as OAUTH_TOKEN
from tests.accounts.test_github_sign_in import GitHub
from tests.attack.test_secrets import REPOSITORY, TOKEN, forms
from tests.integrations import receivers
from tests.operations import production
from tests.operations.production import HOST, Production
from tests.operations.running import Running, wait_until

pytestmark = pytest.mark.production

OWN = "/organizations/octo-org/settings/"
SLACK_ADDRESS = "services/T0/B0/x-s3cret-of-slack"
HEADER = "t0p-s3cret-of-a-header"
SIGNING = """
from policystore.integrations.models import Integration
print(Integration.objects.get(name="siem").secrets["signing"])
"""


class Browser:
    """A browser behind the proxy: it has the cookies that are for https alone, and says whence it came."""

    def __init__(self, address):
        self.address = address
        self.cookies = {}

    def ask(self, method, path, data=None):
        """One answer, no redirect followed."""
        said = {"host": HOST, "x-forwarded-proto": "https", "referer": f"https://{HOST}/"}
        said["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = httpx.request(method, f"{self.address}{path}", headers=said, data=data, timeout=60)
        for line in answer.headers.get_list("set-cookie"):
            self.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        return answer

    def send(self, page, path, **form):
        """Send a form of a page."""
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', self.ask("GET", page).text).group(1)
        answer = self.ask("POST", path, {"csrfmiddlewaretoken": token, **form})
        assert answer.status_code in (200, 302), answer.text
        return answer


@pytest.fixture
def certified(tmp_path):
    """A TLS context for this machine, and the environment of a process that trusts it."""
    made = certificates.prepare(tmp_path / "tls", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    return context, dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), str(made.authority))


@pytest.fixture
def github(certified):
    """GitHub over https, whose Mona administers octo-org."""
    playing = GitHub()
    playing.memberships = [("octo-org", "admin")]
    playing.server.socket = certified[0].wrap_socket(playing.server.socket, server_side=True)
    playing.address = playing.address.replace("http:", "https:")
    yield playing
    playing.close()


@pytest.fixture
def store(github, certified):
    """The settings of the store, its web process and its worker."""
    with production.database() as settings:
        settings |= certified[1] | {"GITHUB_URL": github.address, "OUTBOX_ALLOWED_NETWORKS": "127.0.0.1/32"}
        settings |= {"TRUST_FORWARDED_HEADERS": "1", "GUNICORN_LOG_LEVEL": "debug"}
        production.prepare(settings)
        processes = []
        try:
            processes.append(Production(settings))
            processes.append(Running([sys.executable, "manage.py", "work"], environment=settings))
            yield settings, *processes
        finally:
            for process in processes:
                process.end()


def sign_in(browser):
    """The whole way through GitHub; returns the secrets of it."""
    begun = browser.send("/sign-in/", "/auth/github/login/")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
    refused = browser.ask("GET", "/auth/github/login/callback/?code=c0de-that-is-refused&state=forged")
    assert refused.status_code in (200, 302, 401)
    back = browser.ask("GET", f"/auth/github/login/callback/?code=c0de-of-github&state={asked['state']}")
    assert back.status_code == 302, back.text
    assert browser.ask("GET", "/organizations/octo-org/policy-store/").status_code == 200
    return {"OAuth token": OAUTH_TOKEN, "OAuth code": "c0de-of-github", "refused OAuth code": "c0de-that-is-refused"}


def make_keys(browser):
    """A key of each kind, as its page shows it once."""
    page = f"{OWN}harden-runner-installation/"
    vm = browser.send(page, f"{page}regenerate/", kind="vm", slot="secondary")
    management = browser.send(f"{OWN}management-keys/", f"{OWN}management-keys/", name="tf")
    return {
        "runner key": re.search(r"ps_vm_[A-Za-z0-9]{20,}", vm.text).group(),
        "management key": re.search(r"ps_mgmt_[A-Za-z0-9]{20,}", management.text).group(),
    }


def make_integrations(browser, receiver):
    """A webhook with a header of its own, and Slack's address, which is a secret itself."""
    about = {"name": "siem", "events": ["policy.created", "policy.updated"], "address": receiver.url, "method": "POST"}
    page = f"{OWN}integrations/new/webhook/"
    browser.send(page, page, **about, raw="False", headers=f"Authorization: Bearer {HEADER}")
    page = f"{OWN}integrations/new/slack/"
    slack = receiver.url.replace("store", SLACK_ADDRESS)
    browser.send(page, page, name="sec", events=about["events"], webhook_url=slack)
    return {"header of a webhook": HEADER, "address of Slack": SLACK_ADDRESS}


def use_keys(address, keys):
    """Each key, rightly and wrongly used, as runners and systems do; returns the one-time key of a job."""
    client = httpx.Client(base_url=address, headers={"host": HOST}, timeout=60)
    fetch = f"{REPOSITORY}policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=job-1"
    for end, status in (("", 200), ("x", 401)):
        used = client.get(fetch, headers={"authorization": f"vm-api-key {keys['runner key']}{end}"})
        assert used.status_code == status, used.text
        bearer = {"authorization": f"Bearer {keys['management key']}{end}"}
        used = client.get("/v1/github/octo-org/actions/policies/default", headers=bearer)
        assert used.status_code == status, used.text
    refused = client.get(REPOSITORY + "policies/which", headers={"authorization": f"Bearer {TOKEN}"})
    assert refused.status_code == 401
    monitor = {"correlation_id": "job-1", "job": "build"}
    wait_until(lambda: client.post(f"{REPOSITORY}runs/1/monitor", json=monitor).json().get("one_time_key"), "the job")
    one_time = client.post(f"{REPOSITORY}runs/1/monitor", json=monitor).json()["one_time_key"]
    for end in ("", "x"):
        client.post(f"{REPOSITORY}jobs/job-1/events", json=[], headers={"x-one-time-key": one_time + end})
    return {"one-time key": one_time, "OIDC token": TOKEN}


def use_link(settings, address):
    """A sign-in link, used once and once too often."""
    link = production.manage(settings, "sign_in_link", "--user", "mona", "--base-url", f"https://{HOST}").strip()
    path, browser = urlsplit(link).path, Browser(address)
    browser.send(path, path)
    assert browser.ask("GET", "/organizations/octo-org/policy-store/").status_code == 200
    assert Browser(address).ask("GET", path).status_code < 500
    return {"sign-in link": path.rstrip("/").rpartition("/")[2]}


def interrupt(settings, worker):
    """End the worker's connection while it asks for what is due, as a database does that is restarted; its log says so
    with a traceback."""
    table = sql.Identifier(OutboxMessage._meta.db_table)
    waiting = "datname = current_database() AND wait_event_type = 'Lock'"
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waiting}"
    with psycopg.connect(settings["DATABASE_URL"]) as holder, psycopg.connect(settings["DATABASE_URL"]) as other:
        holder.execute(sql.SQL("LOCK TABLE {}").format(table))
        other.autocommit = True
        wait_until(lambda: other.execute(ended).fetchall(), "a job that waits")
    wait_until(lambda: "The job to deliver what is due to integrations failed" in worker.said, "a line of the worker's")


def dump(settings):
    """Every row of every table."""
    rows = []
    with psycopg.connect(settings["DATABASE_URL"]) as database:
        tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            # A partitioned table cannot be copied by its name.
            copy = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(table))
            with database.cursor().copy(copy) as copied:
                rows += [bytes(piece) for piece in copied]
    return b"".join(rows)


def test_neither_a_dump_nor_any_log_has_a_secret(store, certified, tell):
    settings, web, worker = store
    browser = Browser(web.address)
    made = {name: settings[name] for name in ("SECRET_KEY", "GITHUB_CLIENT_SECRET")}
    made["password of the database"] = urlsplit(settings["DATABASE_URL"]).password or settings["SECRET_KEY"]
    made |= sign_in(browser) | use_link(settings, web.address)
    keys = make_keys(browser)
    made |= keys | use_keys(web.address, keys)
    with receivers.receiver(certified[0]) as receiver:
        receiver.answers[:] = [(500, {}, b"no"), (302, {"Location": "https://127.0.0.1:1/"}, b""), (200, {}, b"ok")]
        made |= make_integrations(browser, receiver)
        made["signing secret"] = production.manage(settings, "shell", "--no-imports", "-c", SIGNING).strip()
        new = "/organizations/octo-org/policy-store/new/"
        browser.send(new, new, name="fresh", text="egress-policy: audit\n")
        wait_until(lambda: len(receiver.calls) > 2, "three deliveries")
    assert any(HEADER in call.headers.get("authorization", "") for call in receiver.calls)
    made |= {f"cookie {name}": value for name, value in browser.cookies.items()}
    interrupt(settings, worker)
    assert web.stop() == worker.stop() == 0
    held, logs = dump(settings), {"web": web.said, "worker": worker.said}
    # What is known to be there is found, so that nothing is overlooked by how it is looked for.
    assert b"hello-world" in held
    assert b"fresh" in held
    assert f"{OWN}management-keys/" in logs["web"]
    assert "Traceback" in logs["worker"]
    assert "c0de" not in held.decode("utf-8", "replace")
    for what, secret in made.items():
        assert len(secret) > 8, what
        for form in forms(secret):
            assert form not in held, f"the dump holds the {what}"
        for process, said in logs.items():
            assert secret not in said, f"the log of {process} holds the {what}"
    lines = {process: said.count("\n") for process, said in logs.items()}
    assert all(lines.values())
    told = f"in {lines['web']} lines of the web process's log or in {lines['worker']} of the worker's"
    tell(f"secrets: {len(made)} used, none in a dump of {len(held):,} bytes, {told}")
