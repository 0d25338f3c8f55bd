"""Clients that never get done: each holds a connection, and says or takes a byte of it now and then."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from contextlib import suppress

from tests.operations.production import HOST

# A web process that had to wait for one of these would wait for hours.
PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 30
SMALL_BUFFER = 4096
FETCH = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml&run_id=1"
SAVE = "/v1/github/octo-org/actions/policies/slow"
# Answers of many times what the buffers between take in.
LARGE = ("/static/django_ace/ace/ace.js", "/v1/openapi.json")


def _start(method, path, more=""):
    return f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}"


OPENINGS = {
    "idle": ("", ""),
    "slow headers": (_start("GET", "/sign-in/", "X-Slow: "), _start("GET", FETCH, "X-Slow: ")),
    "slow body": tuple(_start("POST", path, "Content-Length: 9000\r\n\r\n") for path in ("/sign-in/", SAVE)),
    "slow reader": tuple(_start("GET", path, "\r\n") for path in LARGE),
}


class SlowClients:
    """So many of each kind, all in one thread; those whose connection is closed come again.

    `held` is how many connections of a kind are open, `came_again` how often one was closed from the other side.
    """

    def __init__(self, connect, *, each):
        self._connect = connect
        self._wanted = [(kind, openings[number % 2]) for kind, openings in OPENINGS.items() for number in range(each)]
        self._open = {}
        self.came_again = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    @property
    def held(self):
        return Counter(self._wanted[number][0] for number in list(self._open))

    def __enter__(self):
        for number in range(len(self._wanted)):
            self._begin(number)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()
        for connection in self._open.values():
            connection.close()

    def _begin(self, number):
        kind, opening = self._wanted[number]
        connection = self._connect(receive_buffer=SMALL_BUFFER if kind == "slow reader" else None)
        if opening:
            connection.sendall(opening.encode())
        self._open[number] = connection

    def _go_on(self):
        while not self._stopping.wait(PAUSE_SECONDS):
            for number, connection in list(self._open.items()):
                if not self._a_byte_more(self._wanted[number][0], connection):
                    connection.close()
                    del self._open[number]
                    self.came_again[self._wanted[number][0]] += 1
                    with suppress(OSError):
                        self._begin(number)

    def _a_byte_more(self, kind, connection):
        """Say or take a byte; whether the connection is still of use."""
        try:
            if kind not in ("idle", "slow reader"):
                connection.sendall(b"x")
            connection.setblocking(False)
            taken = connection.recv(1)
        except ssl.SSLWantReadError:
            # Nothing is there yet, or what TLS says to itself.
            return True
        except OSError:
            return False
        finally:
            with suppress(OSError):
                connection.settimeout(TIMEOUT_SECONDS)
        # A last answer, or the end: whoever does not read on purpose is told why no more is wanted.
        return bool(taken) and kind == "slow reader"
