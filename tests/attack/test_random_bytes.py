"""No request, whatever bytes it consists of, is answered with a status above 499: by neither process, over sockets."""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from contextlib import suppress
from random import Random

import pytest

from tests.both_databases import CHOSEN
from tests.faults import clients
from tests.operations import production
from tests.operations.production import HOST, FetchProcess, Production

# One for each process: more at the same time may be asked to retry, whatever they send.
CLIENTS = 2
ANY, TEXT = bytes(range(256)), bytes([*range(32, 127), *range(128, 256)])
NAMES = ["octo-org", "hello-world", "名", "%E5%90%8D", "%00", "%ff%fe", "a%2Fb", "..", "%2e%2e", "", "😀", "a" * 300]
ROUTES = [
    "/{}",
    "/healthz/{}",
    "/readyz/{}",
    "/metrics",
    "/static/{}",
    "/sign-in/{}",
    "/sign-in/link/{}/",
    "/organizations/{}/policy-store/",
    "/organizations/octo-org/{}/",
    "/admin/{}",
    "/v1",
    "/v1/{}",
    "/v1/clusters/{}/github/{}/{}/actions/policies/workflow-check",
    "/v1/github/{}/{}/{}",
    "/v1/github/{}/actions/policies/{}",
    "/v1/github/{}/{}/actions/policies/workflow-policy",
    "/v1/github/{}/{}/actions/policies/workflow-policy/status",
    "/v1/github/{}/{}/actions/policies/workflow-check",
    "/v1/github/octo-org/{}/actions/runs/{}/monitor",
    "/v1/github/octo-org/hello-world/actions/runs/1/correlation/{}/job-markdown-summary",
    "/v1/github/octo-org/{}/actions/jobs/{}/events",
    "/v1/github/octo-org/{}/actions/jobs/{}/dns",
    "/v1/github/{}/actions/tls-inspection-status",
    "/v1/global-feature-flags",
]
METHODS = [
    b"GET",
    b"GET",
    b"GET",
    b"POST",
    b"POST",
    b"HEAD",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"G\xe9T",
    b"get",
]
QUERIES = ["workflow", "run_id", "correlationId", "cluster", "q", "after", "before", "next"]
HEADERS = [
    *(
        "Authorization",
        "Cookie",
        "X-Request-Id",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Content-Encoding",
        "HX-Request",
    ),
    *(
        "X-One-Time-Key",
        "Content-Type",
        "Referer",
        "Origin",
        "Accept",
        "If-Modified-Since",
        "Range",
        "Transfer-Encoding",
    ),
    *("Content-Length", "Expect", "Connection", "Upgrade", "Script-Name", "SCRIPT_NAME", "X-\xe9", "HX-Target"),
]
VALUES = [
    "vm-api-key ",
    "Bearer ",
    "gzip",
    "chunked",
    "100-continue",
    "__Host-session=",
    "csrftoken=",
    "bytes=0-",
    "1",
    "-1",
]
BODIES = [
    b"{}",
    b"[",
    b"[{}]",
    b'{"correlation_id":"',
    b"\x1f\x8b\x08\x00",
    b"a=%ff&b=\xff",
    b"--x\r\nContent-Disposition",
]


def some(random, most, *, of=ANY):
    return bytes(random.choices(of, k=random.randrange(most)))


def escaped(value):
    return "".join(f"%{byte:02x}" for byte in value)


def name(random):
    kind = random.randrange(3)
    if kind == 0:
        return random.choice(NAMES).encode()
    if kind == 1:
        return escaped(some(random, 12)).encode()
    return some(random, 12, of=ANY if random.random() < 0.1 else b"abc-._%:{}'\"\\<>/?#~@=+,;()[]$!*^|`")


def request(random):
    """One request, between well-formed and wholly random."""
    if random.random() < 0.02:
        return some(random, 400)
    route = random.choice(ROUTES).encode()
    while b"{}" in route:
        route = route.replace(b"{}", name(random), 1)
    if random.random() < 0.1:
        route = b"/" + some(random, 40)
    query = b"&".join(
        random.choice(QUERIES).encode() + b"=" + name(random) for _ in range(random.choice((0, 0, 1, 2, 4)))
    )
    version = b"HTTP/1.1" if random.random() < 0.97 else some(random, 12)
    lines = [random.choice(METHODS) + b" " + route + (b"?" + query if query else b"") + b" " + version]
    lines.append(b"Host: " + (HOST.encode() if random.random() < 0.95 else some(random, 20)))
    for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
        value = random.choice(VALUES).encode() if random.random() < 0.6 else b""
        lines.append(
            random.choice(HEADERS).encode()
            + b": "
            + value
            + some(random, 30, of=ANY if random.random() < 0.1 else TEXT)
        )
    body = b""
    if random.random() < 0.4:
        body = random.choice(BODIES) + some(random, 60)
        lines.append(b"Content-Length: " + str(len(body)).encode())
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body


def status(port, sent):
    """The status of the answer; 0 where the server only closes the connection, which HTTP allows for what is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        received = b""
        with suppress(ConnectionError):
            connection.sendall(sent)
            # What comes after a request's end is the next one, which may be incomplete: no more follows.
            connection.shutdown(socket.SHUT_WR)
            while b"\r\n" not in received and (part := connection.recv(65536)):
                received += part
    found = re.match(rb"HTTP/1\.[01] (\d{3})", received)
    return int(found.group(1)) if found else 0


@pytest.fixture
def processes(tmp_path):
    with production.either_database(tmp_path / "store") as settings:
        production.prepare(settings)
        # Budgets would answer most of it with 429.
        more = {"WEB_CONCURRENCY": "1", "OPEN_CALLS_PER_MINUTE": "10000000", "OPEN_MISSES_PER_MINUTE": "10000000"}
        started = [Production(settings, **more), FetchProcess(settings, **more)]
        yield started
        for process in started:
            process.end()


def test_no_bytes_are_answered_with_a_status_above_499(processes, full, tell):
    count = 100_000 if full else 800
    answers, wrong = Counter(), []

    def ask(client):
        random = Random(f"bytes {client}")
        for _ in range(count // CLIENTS):
            sent, process = request(random), processes[client]
            found = status(process.port, sent)
            answers[found] += 1
            if found > 499:
                wrong.append((type(process).__name__, found, sent[:300]))

    clients.together(CLIENTS, ask)
    assert all(process.process.poll() is None for process in processes)
    told = {one: answers[one] for one in sorted(answers)}
    tell(
        f"random bytes on {os.environ[CHOSEN]}: {answers.total():,} requests to both processes, answers {told}, "
        f"{len(wrong)} above 499"
    )
    assert wrong == []
    assert {200, 400, 404} < answers.keys()
