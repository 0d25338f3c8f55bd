"""Receivers on this machine that answer as tests want, and remember what they got."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook


@dataclass
class Call:
    """A request as it came in; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    _told: dict = field(default_factory=dict)

    def verified(self, secret):
        """The body's JSON, once the signature is found good; looked at once, since it holds for five minutes only."""
        if secret not in self._told:
            self._told[secret] = Webhook(secret).verify(self.body, self.headers)
        return self._told[secret]


@dataclass
class Receiver:
    """What a test knows of a running receiver; `answers` are used up, the last one stays.

    An answer is a status, headers and a body, or a function that gets the handler and says what it wants.
    """

    port: int = 0
    answers: list = field(default_factory=lambda: [(200, {}, b"ok")])
    calls: list[Call] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)
    may_answer: threading.Event = field(default_factory=threading.Event)
    recovered: threading.Event = field(default_factory=threading.Event)
    begin: Callable[[], None] = lambda: None
    scheme: str = "http"

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}/store"

    @property
    def ids(self):
        return [call.headers.get("webhook-id") for call in self.calls]

    def answer(self, status, headers=None, body=b""):
        """Answer so from now on."""
        self.answers[:] = [(status, headers or {}, body)]

    def recover(self):
        """Be there, and answer 200 from now on."""
        self.answer(200, body=b"ok")
        self.recovered.set()
        self.begin()

    def hold(self):
        """Answer nothing until `may_answer` is set."""
        self.may_answer.clear()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    receiver: Receiver

    def handle_error(self, request, client_address):
        """A client that goes away is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _handle(self):
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.calls.append(Call(self.command, self.path, headers, body))
        receiver.came.set()
        receiver.may_answer.wait(60)
        answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
        if callable(answer):
            self.close_connection = True
            return answer(self)
        status, more, reply = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(reply)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        return self.wfile.write(reply)

    do_GET = do_POST = do_PUT = do_PATCH = _handle

    def log_message(self, format, *args):
        """Tests look at the calls."""


@contextmanager
def receiver(context=None, *, down=False):
    """A receiver, over TLS where a context is given; one that is down refuses connections until it recovers."""
    with _Server(("127.0.0.1", 0), _Handler, bind_and_activate=False) as server:
        server.server_bind()
        told = Receiver(port=server.server_port, scheme="https" if context else "http")
        told.may_answer.set()
        server.receiver = told
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

        def begin():
            if not thread.is_alive():
                server.server_activate()
                thread.start()

        told.begin = begin
        if not down:
            begin()
        try:
            yield told
        finally:
            told.may_answer.set()
            told.recovered.set()
            if thread.is_alive():
                server.shutdown()
                thread.join()


@contextmanager
def raw_receiver(*pieces, every):
    """A server that says these pieces of bytes, one each so many seconds, the last again and again; its address."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def serve():
            while not ended.is_set():
                with suppress(OSError):
                    talk(listening.accept()[0])

        def talk(client):
            client.settimeout(5)
            waiting = list(pieces)
            with client, suppress(OSError):
                client.recv(65536)
                while not ended.is_set():
                    client.sendall(waiting.pop(0) if len(waiting) > 1 else waiting[0])
                    ended.wait(every)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            ended.set()
            thread.join()
