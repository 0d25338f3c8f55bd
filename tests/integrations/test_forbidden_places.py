# ruff: noqa: RUF001
"""Owners choose addresses; none of the ways to write one leads into the store's own network.

Real listeners stand where the store must not go, and count who comes.
"""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing, suppress

import pytest

from policystore.integrations import http_client
from policystore.integrations.http_client import NotSent
from tests.integrations import receivers

# {port} is the one that listens on this machine. Loopback stands for all that is not public: it can be listened on.
FORMS = [
    "https://127.0.0.1:{port}/",
    "https://127.1:{port}/",
    "https://127.0.1:{port}/",
    "https://127.8.8.8:{port}/",
    "https://2130706433:{port}/",
    "https://0x7f000001:{port}/",
    "https://0x7f.0x0.0x0.0x1:{port}/",
    "https://0x7f.1:{port}/",
    "https://0177.0.0.1:{port}/",
    "https://0177.0.1:{port}/",
    "https://017700000001:{port}/",
    "https://00000177.0.0.1:{port}/",
    "https://127.0.0.1.:{port}/",
    "https://0:{port}/",
    "https://0.0.0.0:{port}/",
    "https://localhost:{port}/",
    "https://LocalHost:{port}/",
    "https://localhost.:{port}/",
    "https://[::1]:{port}/",
    "https://[0:0:0:0:0:0:0:1]:{port}/",
    "https://[::]:{port}/",
    "https://[::127.0.0.1]:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://[::ffff:7f00:1]:{port}/",
    "https://[0:0:0:0:0:ffff:7f00:0001]:{port}/",
    "https://[64:ff9b::7f00:1]:{port}/",
    "https://[64:ff9b:1::7f00:1]:{port}/",
    "https://[2002:7f00:1::]:{port}/",
    "https://[2001:0:7f00:1::]:{port}/",
    "https://[::1%25lo]:{port}/",
    "https://[fe80::1%25lo]:{port}/",
    "https://user@127.0.0.1:{port}/",
    "https://user:word@127.0.0.1:{port}/",
    "https://hooks.example.com@127.0.0.1:{port}/",
    "https://hooks.example.com:443@127.0.0.1:{port}/",
    "https://hooks.example.com%40127.0.0.1:{port}/",
    "https://hooks.example.com\\@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}#@hooks.example.com/",
    "https://127.0.0.1:{port}?@hooks.example.com/",
    "https://127.0.0.1:{port}\\.hooks.example.com/",
    "https://hooks.example.com\t@127.0.0.1:{port}/",
    "https:127.0.0.1:{port}/",
    "https:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "\\\\127.0.0.1:{port}\\",
    "http://127.0.0.1:{port}/",
    "HTTPS://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_x",
    "ftp://127.0.0.1:{port}/",
    "https://１２７.０.０.１:{port}/",
    "https://①②⑦.⓪.⓪.①:{port}/",
    "https://127。0。0。1:{port}/",
    "https://127．0．0．1:{port}/",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "https://1\u00ad27.0.0.1:{port}/",
    "https://127.0.0.1:0{port}/",
    "https://127.0.0.1 :{port}/",
    "https://%31%32%37.0.0.1:{port}/",
]
RESOLVED = ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1", "::127.0.0.1"]


class Listener:
    """Counts who connects to one port of this machine, by IPv4 and IPv6."""

    def __init__(self, stack):
        both = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.socket, self.port = stack.enter_context(closing(both)), both.getsockname()[1]
        self._came = self._own = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self):
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self._came += 1
                connection.close()

    @property
    def came(self):
        """How many have come; a visit of our own stands behind all of them in the queue."""
        before = self._own
        self._own += 1
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as visitor:
            assert visitor.recv(1) == b""
        return self._came - before - 1


@pytest.fixture
def forbidden():
    """A listener that the store must not reach."""
    with ExitStack() as stack:
        yield Listener(stack)


def test_the_listener_counts_who_comes(forbidden):
    for place in ("127.0.0.1", "::1"):
        socket.create_connection((place, forbidden.port), timeout=5).close()
    assert forbidden.came == 2


def send(url):
    return http_client.send("POST", url, headers={}, body=b"{}", seconds=3)


@pytest.mark.parametrize("form", FORMS)
def test_no_way_of_writing_an_address_gets_a_connection(settings, forbidden, form):
    settings.OUTBOX_ALLOWED_NETWORKS = []
    with pytest.raises(NotSent):
        send(form.format(port=forbidden.port))
    assert forbidden.came == 0


@pytest.mark.parametrize("ip", RESOLVED)
@pytest.mark.parametrize("first", [None, "192.0.2.1"])
def test_no_answer_of_a_name_server_gets_a_connection(settings, forbidden, monkeypatch, ip, first):
    settings.OUTBOX_ALLOWED_NETWORKS = []
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET

    def answer(host, port, *_, **__):
        found = [ip] if first is None else [first, ip]
        return [(family, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(NotSent, match="not public"):
        send(f"https://hooks.example.com:{forbidden.port}/")
    monkeypatch.undo()
    assert forbidden.came == 0


def test_a_name_server_that_changes_its_answer_is_asked_once(settings, forbidden, monkeypatch):
    settings.OUTBOX_ALLOWED_NETWORKS = []
    asked, tried = [], []

    def answer(host, port, *_, **__):
        asked.append(host)
        ip = "93.184.215.14" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    def connect(place, timeout=None):
        tried.append(place[0])
        if place[0] != "93.184.215.14":
            return socket.socket().connect(place)
        raise OSError("nobody there")

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(NotSent):
        send(f"https://hooks.example.com:{forbidden.port}/")
    monkeypatch.undo()
    assert (len(asked), tried, forbidden.came) == (1, ["93.184.215.14"], 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("header", ["Location", "Refresh"])
def test_no_answer_of_a_receiver_leads_elsewhere(settings, forbidden, loopback, status, header):
    with receivers.receiver() as receiver:
        receiver.answer(status, {header: f"https://127.0.0.1:{forbidden.port}/"})
        assert send(receiver.url).status == status
    assert forbidden.came == 0


def test_only_what_an_operator_opened_is_reached(forbidden, loopback):
    with pytest.raises(NotSent, match="could not be reached or understood"):
        send(f"http://127.0.0.1:{forbidden.port}/")
    assert forbidden.came == 1
