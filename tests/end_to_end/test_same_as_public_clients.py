"""Whether the runner client of this project's own ends as the public clients do, whatever a server answers.

`test_runner_clients.py` rests on that client in every run of the tests; this holds it against the public ones.
"""

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.end_to_end.public_clients import Runner

pytestmark = [pytest.mark.clients, pytest.mark.browser]

POLICY = {
    "policy_name": "served",
    "allowed_endpoints": ["a.example:443", "b.example"],
    "egress_policy": "block",
    "disable_sudo": True,
    "disable_sudo_and_containers": False,
    "disable_file_monitoring": True,
    "disable_telemetry": True,
}
COMPARED = (
    "egress_policy",
    "allowed_endpoints",
    "disable_sudo",
    "disable_sudo_and_containers",
    "disable_file_monitoring",
)
HOOK_DEFAULTS = {"egress_policy": "audit", "allowed_endpoints": "", "disable_telemetry": False}
HOOK_DEFAULTS |= dict.fromkeys(COMPARED[2:], False)


def served(status=200, seconds=0.0, **changed):
    """A reply with some fields changed; a field that is ... is left out."""
    body = {name: value for name, value in (POLICY | changed).items() if value is not ...}
    return status, seconds, json.dumps(body).encode()


REPLIES = {
    "block": served(),
    "audit": served(egress_policy="audit"),
    "nothing allowed": served(allowed_endpoints=[]),
    "no list": served(allowed_endpoints=...),
    "list is null": served(allowed_endpoints=None),
    "list is a text": served(allowed_endpoints="a.example:443"),
    "no mode": served(egress_policy=...),
    "mode is null": served(egress_policy=None),
    "neither mode nor list": served(egress_policy=..., allowed_endpoints=[]),
    "switches missing": served(disable_sudo=..., disable_file_monitoring=...),
    "switch is null": served(disable_sudo=None),
    "no name": served(policy_name=""),
    "null": (200, 0.0, b"null"),
    "broken": (200, 0.0, b'{"policy_name":'),
    "no content": (204, 0.0, b""),
    "unauthorized": served(401),
    "not found": served(404),
    "too many": served(429),
    "error": served(500),
    "unknown mode": served(egress_policy="Block"),
    "slow": served(seconds=3.5),
}
# Versions before 2.20 wait longer.
CURRENT = "action"


class Answering:
    """An https server that answers each fetch alike, with the certificate of the store."""

    def __init__(self, folder, reply):
        answering = self
        self.fetches = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, seconds, body = reply
                if "/workflow-policy?" in self.path:
                    answering.fetches += 1
                    time.sleep(seconds)
                else:
                    status, body = 404, b"{}"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_HEAD(self):
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                """A client that did not wait is none of this server's business."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def clients(request):
    return Path(request.config.getoption("clients")).resolve()


@pytest.fixture
def answering(store, request):
    server = Answering(store.authority.parent, REPLIES[request.param])
    yield server
    server.close()


def compared(ends):
    return {name: ends.get(name) for name in COMPARED}


@pytest.mark.parametrize("inline", ["", "inline.example:443"], ids=["", "inline"])
@pytest.mark.parametrize("answering", REPLIES, indirect=True)
def test_our_client_ends_as_the_action_does(clients, store, answering, inline, tmp_path):
    runner = Runner(tmp_path, store, address=answering.address)
    inputs = {"use_policy_store": "true", "api_key": "key", "allowed_endpoints": inline, "egress_policy": "block"}
    public = runner.action(clients / CURRENT, repository="any", may_fail=True, **inputs)
    fetches, answering.fetches = answering.fetches, 0
    ours = store.ask("action", api=f"https://{answering.address}/v1", inputs={"allowed_endpoints": inline})
    assert compared(ours["ends"]) == compared(public.mode)
    assert (answering.fetches, ours["requests"]) == (fetches, fetches)
    assert ours["failed"] is ("must be either audit or block" in public.said)
    assert ours.get("annotated", False) is ("::error::Unexpected error fetching" in public.said)


@pytest.mark.parametrize("answering", sorted(REPLIES.keys() - {"slow"}), indirect=True)
def test_our_client_ends_as_the_vm_hook_does(clients, store, answering, tmp_path):
    runner = Runner(tmp_path, store, address=answering.address)
    runner.hook(clients / "hooks", "pre", repository="any", STEP_LINUX_HOOK_MODE="vm")
    fetches, answering.fetches = answering.fetches, 0
    ours = store.ask("vm-hook", api=f"https://{answering.address}/v1")
    ends = {name: ours["ends"].get(name, default) for name, default in HOOK_DEFAULTS.items()}
    assert ends == {name: runner.agent_configuration[name] for name in HOOK_DEFAULTS}
    assert answering.fetches == fetches
