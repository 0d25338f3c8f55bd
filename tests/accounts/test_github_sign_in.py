"""Signing in by GitHub, with a loopback server in GitHub's part: the whole way, through a running store."""

import base64
import hashlib
import json
import re
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.end_to_end.running import Store

pytestmark = pytest.mark.browser

IDS = {"octo-org": 1, "elsewhere": 2}
SECRET = "gho_a-token-that-nobody-else-may-see"


class GitHub:
    """An Enterprise Server with one person, whose memberships a test sets."""

    def __init__(self):
        self.login = "Mona"
        self.memberships = [("octo-org", "member")]
        self.asked_for = {}
        self.exchanged = {}
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(github.read(urlsplit(self.path), self.headers))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                github.exchanged = {name: values[0] for name, values in parse_qs(body).items()}
                self.answer({"access_token": SECRET, "token_type": "bearer", "scope": "read:user,read:org"})

            def answer(self, value):
                text = json.dumps(value).encode()
                self.send_response(200 if value is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def read(self, address, headers):
        if SECRET not in headers.get("Authorization", ""):
            return None
        if address.path == "/api/v3/user":
            return {"id": 7, "login": self.login, "name": "Mona Lisa", "email": "mona@example.com"}
        if address.path == "/api/v3/user/memberships/orgs":
            return [
                {"state": "active", "role": role, "organization": {"id": IDS[login], "login": login}}
                for login, role in self.memberships
            ]
        return None

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def github():
    playing = GitHub()
    yield playing
    playing.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(folder, github):
    running = Store(
        folder,
        "--no-demo",
        "--organization",
        "octo-org",
        GITHUB_URL=github.address,
        GITHUB_CLIENT_ID="client",
        GITHUB_CLIENT_SECRET="client-secret",
        GITHUB_ALLOWED_ORGANIZATIONS="Octo-Org",
    )
    yield running
    running.close()


@pytest.fixture
def browser(store):
    with httpx.Client(base_url=store.address) as client:
        yield client


def begin(browser, query=""):
    """Press the button; returns what GitHub is asked for."""
    page = browser.get("/sign-in/").text
    action = re.search(r'action="([^"]*github[^"]*)"', page).group(1).replace("&amp;", "&")
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page).group(1)
    answer = browser.post(action + query, data={"csrfmiddlewaretoken": token})
    assert answer.status_code == 302, answer.text
    address = urlsplit(answer.headers["location"])
    return address, {name: values[0] for name, values in parse_qs(address.query).items()}


def come_back(browser, asked, **changed):
    """GitHub sends the browser back with a code."""
    said = {"code": "the-code", "state": asked["state"], **changed}
    return browser.get("/auth/github/login/callback/", params=said, follow_redirects=True)


def test_github_is_asked_with_pkce_and_for_memberships_alone(store, github, browser):
    address, asked = begin(browser)
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{github.address}/login/oauth/authorize"
    assert (asked["client_id"], asked["response_type"], asked["code_challenge_method"]) == ("client", "code", "S256")
    assert set(asked["scope"].split()) == {"read:user", "read:org"}
    come_back(browser, asked)
    proof = base64.urlsafe_b64encode(hashlib.sha256(github.exchanged["code_verifier"].encode()).digest())
    assert proof.decode().rstrip("=") == asked["code_challenge"]


def test_a_member_of_an_allowed_organization_gets_in_as_an_auditor(store, github, browser):
    github.memberships = [("octo-org", "member"), ("elsewhere", "admin")]
    page = come_back(browser, begin(browser)[1])
    assert page.status_code == 200
    assert "No policies yet" in page.text
    assert "mona" in page.text
    assert browser.get("/organizations/octo-org/policy-store/new/").status_code == 403
    assert browser.get("/organizations/elsewhere/policy-store/").status_code == 404


def test_the_token_is_not_in_clear_on_the_disk(store, github, browser, folder):
    github.memberships = [("octo-org", "member")]
    come_back(browser, begin(browser)[1])
    for path in folder.glob("policystore.sqlite3*"):
        assert SECRET.encode() not in path.read_bytes()
    with sqlite3.connect(folder / "policystore.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM accounts_githubcredential").fetchone() == (1,)


@pytest.mark.parametrize("memberships", [[], [("elsewhere", "admin")]])
def test_everybody_else_stays_out(store, github, browser, memberships):
    github.login, github.memberships = "Stranger", memberships
    try:
        page = come_back(browser, begin(browser)[1])
        assert page.status_code == 403
        assert browser.get("/").status_code == 302
    finally:
        github.login, github.memberships = "Mona", [("octo-org", "member")]


def test_a_forged_state_and_a_refusal_lead_nowhere(store, github, browser):
    _, asked = begin(browser)
    for changed in ({"state": "forged"}, {"error": "access_denied", "code": ""}):
        page = come_back(browser, asked, **changed)
        assert page.status_code in (200, 401)
        assert "Sign in" in page.text or "Try again" in page.text
        assert "Third-Party" not in page.text
        assert browser.get("/").status_code == 302


def test_who_followed_a_link_arrives_there_after_signing_in(store, github, browser):
    github.memberships = [("octo-org", "member")]
    asked_for = browser.get("/organizations/octo-org/runs/?q=ci").headers["location"]
    page = browser.get(asked_for).text
    wanted = re.search(r'name="next" value="([^"]+)"', page).group(1)
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page).group(1)
    answer = browser.post("/auth/github/login/", data={"csrfmiddlewaretoken": token, "next": wanted})
    asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    page = come_back(browser, asked)
    assert (page.url.path, page.url.query) == ("/organizations/octo-org/runs/", b"q=ci")
    assert browser.get("/sign-in/?next=/organizations/octo-org/runs/").headers["location"].endswith("/runs/")
    assert browser.get("/sign-in/?next=//evil.example/").headers["location"] == "/"


def test_a_foreign_page_is_not_even_carried_along(store, browser):
    assert 'name="next"' not in browser.get("/sign-in/?next=https://evil.example/").text


def test_nobody_is_led_to_a_foreign_page_after_signing_in(store, github, browser):
    github.memberships = [("octo-org", "member")]
    _, asked = begin(browser, "?next=https://evil.example/")
    page = come_back(browser, asked)
    assert page.url.host == "127.0.0.1"
    assert all(step.url.host == "127.0.0.1" for step in page.history)
