"""The nginx and Caddy configurations of OPERATIONS.md, by the real programs in front of a store in production."""

import http.client
import json
import re
import socket
import subprocess
import threading
import time

import pytest

from policystore.operations import certificates
from tests.operations.production import HOST, FetchProcess, Production
from tests.operations.proxies import BOTH, Proxy, nginx
from tests.operations.running import free_port

pytestmark = pytest.mark.production

MEBIBYTE = 1024 * 1024
FETCH = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=c1"
POLICY = "/v1/github/octo-org/actions/policies/some-policy"
TARGETS = [
    FETCH,
    "/v1/github/customer%3A%3Aserver%3A%3Aowner/repo/actions/policies/workflow-policy?workflow=.github%2Fworkflows%2Fa%20b.yml",
    "/v1/github/customer::server::owner/repo/actions/policies/workflow-policy?workflow=&run_id=1",
    "/v1/github/octo-org/actions/policies/a%2Fb%252Fc%20d",
    "/v1/github/octo-org/actions/policies/a%2fb%3a%2e%2E%c3%bc",
    "/v1//double//slashes",
    "/v1/dots/%2e%2e/stay",
    "/v1/query?a=%2F&b=+&c=%zz&d=ü".replace("ü", "%C3%BC"),
]


@pytest.fixture(scope="module")
def trusting(production):
    store = Production(production.settings, TRUST_FORWARDED_HEADERS="1")
    yield store
    store.end()


@pytest.fixture(scope="module")
def fetch(production):
    store = FetchProcess(production.settings, TRUST_FORWARDED_HEADERS="1")
    yield store
    store.end()


@pytest.fixture(params=BOTH)
def proxy(request, run, tmp_path, trusting, fetch):
    """Each proxy in front of a store that trusts its forwarded headers."""
    return Proxy(request.param, run, tmp_path / "proxy", trusting.port, fetch.port)


@pytest.fixture(params=BOTH)
def make(request):
    return request.param


class Recorder:
    """A server that remembers the first line and the headers of what it is asked."""

    def __init__(self):
        self.asked = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while True:
            connection, _ = self.socket.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
                    head += more
                if not head:
                    return
                self.asked.append(head.decode("latin-1").split("\r\n"))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    def close(self):
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.thread.join()
        self.socket.close()


@pytest.fixture
def recorder():
    recording = Recorder()
    yield recording
    recording.close()


def test_paths_and_queries_go_on_byte_for_byte(make, run, tmp_path, recorder):
    proxy = Proxy(make, run, tmp_path / "proxy", recorder.port)
    for target in TARGETS:
        assert proxy.ask(target, Authorization="vm-api-key some-key")[0] == 200, target
    assert [asked[0] for asked in recorder.asked] == [f"GET {target} HTTP/1.1" for target in TARGETS]
    assert all(f"Host: {HOST}" in asked and "vm-api-key some-key" in "".join(asked) for asked in recorder.asked)


RUNNERS = [
    "/v1",
    FETCH,
    "/v1/github/customer%3A%3Aserver%3A%3Aowner/repo/actions/policies/workflow-policy?workflow=.github%2Fworkflows%2Fa%20b.yml",
    "/v1/github/octo-org/hello-world/actions/policies/workflow-check?workflow=ci.yml",
    "/v1/github/octo-org/hello-world/actions/policies/workflow-policy/status?correlation_id=c1",
    "/v1/github/octo-org/hello-world/actions/runs/1/monitor",
    "/v1/github/octo-org/hello-world/actions/runs/1/correlation/c1/job-markdown-summary",
    "/v1/github/octo-org/hello-world/actions/subscription",
    "/v1/github/octo-org/actions/tls-inspection-status",
    "/v1/global-feature-flags?agent_type=a&version=1",
    "/v1/global-blocklist",
    "/api/cargowall/v1/action/policy?job_key=build",
    "/v1/clusters/prod-k8s",
    "/v1/clusters/prod-k8s/github/octo-org/hello-world/actions/policies/workflow-check?workflow=ci.yml",
]
OTHERS = [
    "/",
    "/organizations/octo-org/policy-store/",
    "/healthz",
    POLICY,
    "/v1/github/octo-org/actions/policies/workflow-policy",
    "/v1/github/octo-org/hello-world/actions/policies/which",
    "/v1/github/octo-org/hello-world/actions/jobs/c1/events",
    "/v1/github/octo-org/hello-world/actions/jobs/c1/dns",
    "/v1/clusters/prod-k8s/github/octo-org/hello-world/actions/jobs/c1/networkconnection",
    "/v1/github/octo-org/actions/baseline",
    "/api/cargowall/v1/action/job",
    "/v1/openapi.json",
]


def test_runners_reach_the_fetch_process_and_everything_else_the_web_process(make, run, tmp_path, recorder):
    fetch = Recorder()
    try:
        proxy = Proxy(make, run, tmp_path / "proxy", recorder.port, fetch.port)
        for target in (*RUNNERS, *OTHERS):
            assert proxy.ask(target)[0] == 200
    finally:
        fetch.close()
    assert [asked[0].split()[1] for asked in fetch.asked] == RUNNERS
    assert [asked[0].split()[1] for asked in recorder.asked] == OTHERS
    assert [line.lower() for line in fetch.asked[0] if "x-forwarded-proto" in line.lower()] == [
        "x-forwarded-proto: https"
    ]


def test_while_the_fetch_process_is_away_the_web_process_answers_runners(make, run, tmp_path, recorder):
    proxy = Proxy(make, run, tmp_path / "proxy", recorder.port)
    for _ in range(3):
        began = time.monotonic()
        assert proxy.ask(POLICY, method="POST", Content_Length="0")[0] == 200
        assert proxy.ask(FETCH)[0] == 200
        # The clients give up after three seconds.
        assert time.monotonic() - began < 3
    assert len(recorder.asked) == 6


def test_what_a_client_says_of_its_own_protocol_is_replaced(make, run, tmp_path, recorder):
    proxy = Proxy(make, run, tmp_path / "proxy", recorder.port)
    proxy.ask("/", X_Forwarded_Proto="http")
    said = [line.lower() for line in recorder.asked[0] if line.lower().startswith("x-forwarded-proto")]
    assert said == ["x-forwarded-proto: https"]


def test_what_a_client_says_of_its_own_address_is_replaced(make, run, tmp_path, recorder):
    proxy = Proxy(make, run, tmp_path / "proxy", recorder.port)
    proxy.ask("/", X_Forwarded_For="203.0.113.9")
    said = [line.lower() for line in recorder.asked[0] if line.lower().startswith("x-forwarded-for")]
    assert said == ["x-forwarded-for: 127.0.0.1"]


def test_a_runner_fetches_its_policy(proxy, production):
    status, headers, body = proxy.ask(FETCH, Authorization=f"vm-api-key {production.keys['key']}")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "no-store")
    assert json.loads(body)["policy_name"] == "default"
    enterprise = FETCH.replace("/octo-org/", "/acme%3A%3Aserver%3A%3Aocto-org/")
    assert proxy.ask(enterprise, Authorization=f"vm-api-key {production.keys['key']}")[0] == 200
    assert proxy.ask(FETCH)[0] == 401


def test_pages_know_that_they_are_reached_by_https(proxy):
    status, headers, body = proxy.ask("/sign-in/")
    assert status == 200, body
    assert "max-age=31536000" in headers["Strict-Transport-Security"]
    # Nobody gets the proxy to lie.
    assert proxy.ask("/sign-in/", X_Forwarded_Proto="http")[0] == 200


def test_plain_http_leads_to_https(proxy):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.http, timeout=20)
    connection.request("GET", "/sign-in/?a=%2F", headers={"Host": HOST})
    answer = connection.getresponse()
    assert (answer.status, re.sub(r":\d+/", "/", answer.headers["Location"])) == (308, f"https://{HOST}/sign-in/?a=%2F")
    connection.close()


@pytest.mark.parametrize("proxy", [pytest.param(nginx, marks=pytest.mark.needs_nginx)], indirect=True)
def test_plain_http_leads_to_no_other_host(proxy):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.http, timeout=20)
    connection.request("GET", "/sign-in/", headers={"Host": "evil.example"})
    assert "evil.example" not in connection.getresponse().headers.get("Location", "")
    connection.close()


@pytest.mark.parametrize("size", [MEBIBYTE + 1, 3 * MEBIBYTE])
def test_a_body_of_more_than_a_mebibyte_is_refused_as_json(proxy, production, size):
    key = f"Bearer {production.keys['management']}"
    status, headers, body = proxy.ask(POLICY, method="POST", body=b" " * size, Authorization=key)
    assert (status, headers["Content-Type"], json.loads(body)["error"]) == (413, "application/json", "body_too_large")


@pytest.mark.parametrize("size", [MEBIBYTE + 1, 3 * MEBIBYTE])
def test_a_body_in_chunks_is_refused_when_it_grows_too_large(proxy, production, size):
    said = {"Authorization": f"Bearer {production.keys['management']}", "Transfer_Encoding": "chunked"}
    status, _, body = proxy.ask(POLICY, method="POST", body=b" " * size, **said)
    assert (status, json.loads(body)["error"]) == (413, "body_too_large")


def test_a_body_in_chunks_reaches_the_store_whole(proxy, production):
    said = {"Authorization": f"Bearer {production.keys['management']}", "Transfer_Encoding": "chunked"}
    body = b" " * 200_000 + b"[1, oops]"
    status, _, answer = proxy.ask(POLICY, method="POST", body=body, **said)
    assert (status, json.loads(answer)["error"]) == (400, "invalid_json")
    assert "column 200005" in json.loads(answer)["message"]


def test_a_body_of_a_mebibyte_reaches_the_store(proxy, production):
    key = f"Bearer {production.keys['management']}"
    status, _, body = proxy.ask(POLICY, method="POST", body=b" " * MEBIBYTE, Authorization=key)
    assert (status, json.loads(body)["error"]) == (400, "invalid_json")


def test_forwarded_headers_mean_nothing_where_they_are_not_trusted(production, trusting):
    plain = Production(production.settings)
    try:
        assert plain.get("/sign-in/", X_Forwarded_Proto="https").status_code == 301
        assert trusting.get("/sign-in/", X_Forwarded_Proto="https").status_code == 200
        for store in (plain, trusting):
            # A runner is never redirected, and no header but the one makes a request secure.
            assert store.get(FETCH).status_code == 401
            answer = store.get("/sign-in/", X_Forwarded_Ssl="on", X_Forwarded_Protocol="ssl", Forwarded="proto=https")
            assert (answer.status_code, answer.headers["location"]) == (301, f"https://{HOST}/sign-in/")
            assert (
                store.get("/sign-in/", X_Forwarded_Host="evil.example")
                .headers["location"]
                .startswith(f"https://{HOST}/")
            )
    finally:
        plain.end()


@pytest.mark.needs_nginx
def test_nginx_itself_finds_nothing_wrong(tmp_path):
    made = certificates.prepare(tmp_path / "tls", [HOST])
    command = nginx(tmp_path, made, 8000, 8001, free_port(), free_port())
    done = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr
