"""Clients in a closed loop, in a process of their own: each asks, waits for the whole answer, and asks again.

`python -m tests.benchmarks.load` reads a `Load` as JSON from its standard input and writes a `Measured` as JSON. It
knows nothing of Django, so that it takes little from the processors that it shares with what it measures.
"""

from __future__ import annotations

import json
import random
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

PATIENCE_SECONDS = 30


class UnexpectedReply(Exception):
    """A reply that is no 200, or not the one that was asked for: the figure would mean nothing."""


@dataclass(frozen=True)
class Load:
    """Whom to ask, what, how long, and how many at once.

    `path`, `expected` and `body` are filled with `%(scope)d`, a random number below `scopes`; with the other numbers
    that are made of it (`repository`, `workflow`, `policy`); and with `%(number)s`, which no other request has. A body
    is posted. `keep_alive` asks for the connection to be kept and uses it again where the server agrees.
    """

    port: int
    path: str
    expected: str
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    scopes: int = 1
    policies: int = 1
    clients: int = 16
    seconds: float = 5
    warm_up: float = 0.5
    keep_alive: bool = False
    name: str = "run"


@dataclass(frozen=True)
class Measured:
    """How many requests were answered in how long, and how long one took, in seconds, connecting included.

    `acknowledged` are all that had their reply, those of the warm-up too.
    """

    requests: int
    seconds: float
    p50: float
    p99: float
    longest: float
    acknowledged: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def measure(load: Load) -> Measured:
    """Run the clients in their own process. Raises UnexpectedReply."""
    command = [sys.executable, "-m", "tests.benchmarks.load"]
    done = subprocess.run(command, input=json.dumps(asdict(load)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnexpectedReply(done.stderr[-2000:])
    return Measured(**json.loads(done.stdout))


def requests(load: Load) -> Iterator[tuple[bytes, bytes]]:
    """Each request's bytes, and what its reply must hold."""
    kept = "keep-alive" if load.keep_alive else "close"
    headers = {"Host": f"127.0.0.1:{load.port}", "Connection": kept, **load.headers}
    rest = " HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    picked, scopes, policies, number = random.Random(load.name), load.scopes, load.policies, 0
    while True:
        number += 1
        scope = int(picked.random() * scopes)
        filled = {
            "scope": scope,
            "repository": scope // 10,
            "workflow": scope % 10,
            "policy": scope % policies,
            "number": f"{load.name}-{number}",
        }
        path, expected = load.path % filled, load.expected % filled
        if load.body:
            body = (load.body % filled).encode()
            yield f"POST {path}{rest[:-2]}Content-Length: {len(body)}\r\n\r\n".encode() + body, expected.encode()
        else:
            yield f"GET {path}{rest}".encode(), expected.encode()


class Client:
    """One client: its connection, what it asked, and what has come back so far."""

    __slots__ = ("_address", "_expected", "_received", "_total", "asked_at", "connection")

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self.connection: socket.socket | None = None

    def ask(self, request: bytes, expected: bytes) -> bool:
        """Send a request, on a fresh connection unless one was kept; whether the connection is new."""
        self.asked_at = time.perf_counter()
        self._expected, self._received, self._total = expected, b"", 0
        fresh = self.connection is None
        if self.connection is None:
            self.connection = socket.socket()
            self.connection.connect(self._address)
        self.connection.sendall(request)
        return fresh

    def hear(self) -> bool:
        """Take what has arrived; whether the reply is whole. Raises UnexpectedReply."""
        assert self.connection is not None
        part = self.connection.recv(65536)
        self._received += part
        if not self._total and (end := self._received.find(b"\r\n\r\n")) >= 0:
            self._total = end + 4 + _content_length(self._received[:end])
        if part and (not self._total or len(self._received) < self._total):
            return False
        self._check()
        return True

    def closes(self) -> bool:
        """Whether the server ends the connection after this reply."""
        return b"connection: close" in self._received[: self._received.find(b"\r\n\r\n")].lower()

    def _check(self) -> None:
        if not self._received.startswith(b"HTTP/1.1 200 ") or self._expected not in self._received:
            raise UnexpectedReply(f"expected 200 with {self._expected!r}, got {self._received[:1000]!r}")


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise UnexpectedReply(f"no Content-Length: {head!r}")


def run(load: Load) -> Measured:
    """Ask until the time is over. Raises UnexpectedReply."""
    waiting, poll, asked = {}, select.epoll(), requests(load)
    began = time.perf_counter() + load.warm_up
    ends, times, acknowledged = began + load.seconds, array("d"), 0

    def ask(client: Client) -> None:
        if client.ask(*next(asked)):
            assert client.connection is not None
            waiting[client.connection.fileno()] = client
            poll.register(client.connection.fileno(), select.EPOLLIN)

    for _ in range(load.clients):
        ask(Client(load.port))
    while (now := time.perf_counter()) < ends:
        ready = poll.poll(PATIENCE_SECONDS)
        if not ready:
            raise UnexpectedReply(f"no reply within {PATIENCE_SECONDS} seconds")
        for number, _ in ready:
            client = waiting[number]
            if not client.hear():
                continue
            now = time.perf_counter()
            acknowledged += 1
            if began <= now < ends:
                times.append(now - client.asked_at)
            if not load.keep_alive or client.closes():
                assert client.connection is not None
                del waiting[number]
                client.connection.close()
                client.connection = None
            ask(client)
    return _measured(times, load.seconds, acknowledged)


def _measured(times: array[float], seconds: float, acknowledged: int) -> Measured:
    if not times:
        raise UnexpectedReply("no request was answered in the time")
    ordered = sorted(times)
    return Measured(
        requests=len(ordered),
        seconds=seconds,
        p50=ordered[len(ordered) // 2],
        p99=ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)],
        longest=ordered[-1],
        acknowledged=acknowledged,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(run(Load(**json.load(sys.stdin))))))
