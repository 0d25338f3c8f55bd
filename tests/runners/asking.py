"""Two ways to ask for a policy, with one answer: through Django, and through the WSGI application before it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from django.test import Client
from django.test.client import ClientHandler

from policystore.runners.clusters import ClusterAddress, without_cluster
from policystore.runners.fetch.app import FetchFirst


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def json(self):
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class _Handler(ClientHandler):
    """Django's test handler behind the step that reads cluster base addresses, as in `policystore.config.wsgi`."""

    def __call__(self, environ):
        return super().__call__(without_cluster(environ))


class RunnerClient(Client):
    """A client of the /v1 routes."""

    def __init__(self):
        super().__init__(raise_request_exception=False)
        self.handler = _Handler()


def through_django(method: str, target: str, headers: dict[str, str]) -> Answer:
    response = RunnerClient().generic(method, target, headers=headers)
    assert response.status_code < 500 or response.status_code == 503, response.content
    return Answer(response.status_code, response.content, {k.lower(): v for k, v in response.headers.items()})


def before_django(method: str, target: str, headers: dict[str, str]) -> Answer:
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "HTTP_HOST": "testserver",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }
    started = {}

    def start_response(status, response_headers):
        started["status"] = int(status.split()[0])
        started["headers"] = {name.lower(): value for name, value in response_headers}

    def nothing_else(environ, start_response):
        raise AssertionError(f"{environ['PATH_INFO']} was not answered before Django")

    body = b"".join(ClusterAddress(FetchFirst(nothing_else))(environ, start_response))
    return Answer(started["status"], body, started["headers"])


def ask(method: str, target: str, headers: dict[str, str] | None = None, body=None) -> Answer:
    """Any /v1 route, as a client sends it: the target's bytes untouched, the body as JSON."""
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    for name in ("host", "connection", "content-length", "content-type"):
        sent.pop(name, None)
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    response = RunnerClient().generic(method, target, data, content_type="application/json", headers=sent)
    return Answer(response.status_code, response.content, {k.lower(): v for k, v in response.headers.items()})
