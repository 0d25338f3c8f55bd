"""The short way of a policy fetch through gunicorn: what it answers is what gunicorn's own sync worker answers."""

import re
import socket
import threading
import time
from contextlib import closing

import pytest

from policystore import access_log, gunicorn_worker
from tests.operations import production
from tests.operations.production import HOST, Production

TARGET = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy"
ASKED = f"{TARGET}?workflow=ci.yml&run_id=1&correlationId=a"
# Two runs of the same request differ in these.
OF_THE_MOMENT = re.compile(rb"(X-Request-Id|Date|Expires): [^\r]*")


@pytest.fixture(scope="module")
def stores():
    """The store as it is served, the same by gunicorn alone, and the keys of its organization."""
    # Django writes the parts of some headers in the order of a set.
    with production.database() as settings:
        keys = production.prepare(settings)
        short = Production(settings, PYTHONHASHSEED="0")
        plain = Production(
            settings, PYTHONHASHSEED="0", GUNICORN_CMD_ARGS="--worker-class tests.operations.plain_worker.PlainWorker"
        )
        yield short, plain, keys
        short.end()
        plain.end()


def get(target=ASKED, method="GET", version="HTTP/1.1", host=HOST, **headers):
    lines = [f"{method} {target} {version}", f"Host: {host}"]
    return "\r\n".join([*lines, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""])


def answer(port, *parts):
    """All that comes back for these parts, each sent in a packet of its own."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.2)
            connection.sendall(part.encode("latin-1"))
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


REQUESTS = {
    "as runners send it": get(User_Agent="actions/http-client", Connection="close", Authorization="vm-api-key {key}"),
    "no space behind a name": get(Authorization="vm-api-key {key}").replace("Host: ", "Host:"),
    "other case": get(AUTHORIZATION="VM-API-KEY {key}"),
    "spaces around": get(Authorization="  vm-api-key {key}  "),
    "escapes in the query": get(
        f"{TARGET}?workflow=caf%C3%A9.yml&run_id=%00&correlationId=a+b", Authorization="vm-api-key {key}"
    ),
    "no query": get(TARGET, Authorization="vm-api-key {key}"),
    "escapes in the path": get(ASKED.replace("hello-world", "hello%2Dworld"), Authorization="vm-api-key {key}"),
    "no key": get(),
    "a wrong key": get(Authorization="vm-api-key nonsense"),
    "a management key": get(Authorization="vm-api-key {management}"),
    "a foreign host": get(host="evil.example", Authorization="vm-api-key {key}"),
    "no policy": get(ASKED.replace("octo-org", "other"), Authorization="vm-api-key {key}"),
    "HEAD": get(method="HEAD", Authorization="vm-api-key {key}"),
    "POST": get(method="POST", Authorization="vm-api-key {key}"),
    "HTTP/1.0": get(version="HTTP/1.0", Authorization="vm-api-key {key}"),
    "a body": get(Content_Length="3", Authorization="vm-api-key {key}") + "abc",
    "chunks": get(Transfer_Encoding="chunked", Authorization="vm-api-key {key}") + "3\r\nabc\r\n0\r\n\r\n",
    "keep-alive": get(Connection="keep-alive", Authorization="vm-api-key {key}"),
    "two hosts": get(Authorization="vm-api-key {key}").replace("\r\n", f"\r\nHost: {HOST}\r\n", 1),
    "two keys": get(Authorization="vm-api-key {key}").replace("\r\n", "\r\nAuthorization: vm-api-key x\r\n", 1),
    "two content types": get(Authorization="vm-api-key {key}", Content_Type="a\r\nContent-Type: a"),
    "as many headers as may be": get(Authorization="vm-api-key {key}", Source="x" + "\r\na:" * 97),
    "a header too many": get(Authorization="vm-api-key {key}", Source="x" + "\r\na:" * 98),
    "a fragment": get(f"{ASKED}#b", Authorization="vm-api-key {key}"),
    "a whole address": get(f"http://other.example{ASKED}", Authorization="vm-api-key {key}"),
    "a method in lower case": get(method="get", Authorization="vm-api-key {key}"),
    "forwarding headers": get(
        Authorization="vm-api-key {key}", Forwarded="host=evil.example", X_Forwarded_Host="evil.example"
    ),
    "a name with _": get(Authorization="vm-api-key {key}").replace("Host:", "X_A: 1\r\nHost:"),
    "a continued line": get(Authorization="vm-api-key {key}").replace("vm-api-key ", "vm-api-key\r\n "),
    "a bare line feed": get(Authorization="vm-api-key {key}").replace("\r\nHost", "\nHost"),
    "a value that is no ASCII": get(User_Agent="\xe9", Authorization="vm-api-key {key}"),
    "a control character": get(User_Agent="\x01", Authorization="vm-api-key {key}"),
    "a long query": get(f"{ASKED}&more={'x' * 6000}", Authorization="vm-api-key {key}"),
    "a query that is too long": get(f"{ASKED}&more={'x' * 9000}", Authorization="vm-api-key {key}"),
    "another address": get("/v1", Authorization="vm-api-key {key}"),
    "a second request behind it": get(Authorization="vm-api-key {key}") + get("/v1"),
}


def comparable(received):
    return OF_THE_MOMENT.sub(rb"\1", received)


@pytest.mark.production
@pytest.mark.parametrize("name", REQUESTS)
def test_it_answers_byte_for_byte_what_gunicorns_own_worker_answers(stores, name):
    short, plain, keys = stores
    request = REQUESTS[name].replace("{key}", keys["key"]).replace("{management}", keys["management"])
    found, expected = (comparable(answer(store.port, request)) for store in (short, plain))
    assert found == expected
    assert found.startswith(b"HTTP/1.")


@pytest.mark.production
def test_a_request_in_two_packets_is_answered(stores):
    short, _, keys = stores
    request = get(Authorization=f"vm-api-key {keys['key']}")
    found = answer(short.port, request[:100], request[100:])
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.production
def test_a_client_that_keeps_its_connection_open_holds_up_nobody(stores):
    short, _, keys = stores
    request = get(Authorization=f"vm-api-key {keys['key']}").encode()
    kept = [socket.create_connection(("127.0.0.1", short.port), timeout=20) for _ in range(6)]
    try:
        began = time.monotonic()
        for connection in kept:
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        # gunicorn's own worker waits two seconds for each to close.
        assert time.monotonic() - began < 2
    finally:
        for connection in kept:
            connection.close()


@pytest.mark.production
def test_clients_that_go_away_at_once_stop_nobody(stores):
    short, _, keys = stores
    for request in (b"", b"GET ", get(Authorization=f"vm-api-key {keys['key']}").encode()):
        for _ in range(5):
            with closing(socket.create_connection(("127.0.0.1", short.port))) as connection:
                connection.sendall(request)
    assert short.get(ASKED, authorization=f"vm-api-key {keys['key']}").status_code == 200
    assert "Traceback" not in short.said


@pytest.mark.parametrize(
    "name", ["as runners send it", "no key", "a foreign host", "no query", "keep-alive", "as many headers as may be"]
)
def test_what_is_plain_goes_the_short_way(name):
    assert gunicorn_worker.environ_of(REQUESTS[name].encode())["PATH_INFO"] == TARGET


@pytest.mark.parametrize(
    "name",
    [
        *(
            "escapes in the path",
            "HEAD",
            "POST",
            "HTTP/1.0",
            "a body",
            "chunks",
            "two hosts",
            "two keys",
            "two content types",
            "a header too many",
            "a fragment",
            "a whole address",
            "a method in lower case",
            "a name with _",
        ),
        *("a continued line", "a bare line feed", "a value that is no ASCII", "a control character", "another address"),
        "a second request behind it",
    ],
)
def test_what_is_not_is_left_to_gunicorn(name):
    assert gunicorn_worker.environ_of(REQUESTS[name].encode("latin-1")) is None


def test_part_of_a_request_is_left_to_gunicorn():
    whole = REQUESTS["as runners send it"].encode()
    assert [gunicorn_worker.environ_of(whole[:end]) for end in range(len(whole))] == [None] * len(whole)


def test_an_application_that_starts_its_answer_anew_is_heard():
    def application(environ, start_response):
        start_response("200 OK", [])
        start_response("500 Internal Server Error", [("Content-Length", "1")], (ValueError, ValueError(), None))
        return [b"x"]

    said = gunicorn_worker.answer(application, {})
    assert said.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert said.endswith(b"Content-Length: 1\r\n\r\nx")


def test_lines_that_were_held_back_are_written_before_a_silent_client_is_waited_for(monkeypatch):
    server, client = socket.socketpair()
    with closing(server), closing(client):
        monkeypatch.setattr(access_log, "write", lambda: client.sendall(b"GET"))
        # So that the test ends if nothing is written.
        late = threading.Timer(5, client.close)
        late.start()
        assert gunicorn_worker.first_bytes(server) == b"GET"
        late.cancel()
