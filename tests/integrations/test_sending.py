"""One request to an address that a person gave: bounded, never redirected, to the checked address only."""

import socket
import ssl
import time

import pytest

from policystore.integrations import http_client
from policystore.integrations.http_client import NotSent
from policystore.operations import certificates
from tests.integrations import receivers
from tests.integrations.test_addresses import leads_to


def post(url, seconds=5.0, **headers):
    return http_client.send("POST", url, headers=headers, body=b"{}", seconds=seconds)


def test_it_returns_the_answer_of_any_status(receiver):
    receiver.answer(418, {"Retry-After": "7"}, b"short and stout")
    reply = post(receiver.url, Authorization="Bearer x")
    assert (reply.status, reply.headers["retry-after"], reply.body) == (418, "7", b"short and stout")
    [call] = receiver.calls
    assert (call.method, call.path, call.body) == ("POST", "/store", b"{}")
    assert call.headers["authorization"] == "Bearer x"
    assert call.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_it_follows_no_redirect(receiver, status):
    with receivers.receiver() as elsewhere:
        receiver.answer(status, {"Location": elsewhere.url})
        assert post(receiver.url).status == status
        assert elsewhere.calls == []


def test_this_machine_is_refused_unless_an_operator_opens_it(settings, receiver):
    settings.OUTBOX_ALLOWED_NETWORKS = []
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):
        with pytest.raises(NotSent, match="not public"):
            post(f"https://{host}:{receiver.port}/")
    assert receiver.calls == []


def test_it_connects_to_the_address_that_was_checked_and_asks_once(monkeypatch):
    """A name server that changes its answer between the check and the connection gains nothing."""
    answers, connected = iter(["93.184.215.14", "127.0.0.1"]), []

    def answer(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(address, timeout):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(NotSent):
        post("https://rebinding.example/")
    assert connected == [("93.184.215.14", 443)]
    assert next(answers) == "127.0.0.1"


@pytest.mark.parametrize(
    "pieces",
    [
        (b"",),
        (b"H", b"T"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Drip: a\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n",),
    ],
    ids=["hangs", "drips the status", "drips headers", "continues for ever"],
)
def test_a_receiver_cannot_hold_it_up(loopback, pieces):
    with receivers.raw_receiver(*pieces, every=0.05) as url:
        began = time.monotonic()
        with pytest.raises(NotSent):
            post(url, seconds=0.6)
        assert 0.2 < time.monotonic() - began < 2


def test_an_answer_that_drips_counts_by_its_status(loopback):
    with receivers.raw_receiver(b"HTTP/1.1 200 OK\r\n\r\n", b"a", every=0.05) as url:
        began = time.monotonic()
        reply = post(url, seconds=0.6)
        assert time.monotonic() - began < 2
    assert reply.status == 200
    assert set(reply.body) <= set(b"a")


def test_a_large_answer_is_cut(receiver):
    receiver.answer(200, body=b"x" * 5_000_000)
    assert len(post(receiver.url).body) == http_client.MAX_BYTES


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300]
)
def test_what_is_no_http_is_said_so(loopback, said):
    with receivers.raw_receiver(said, every=0.01) as url, pytest.raises(NotSent, match=r"understood|answer within"):
        post(url, seconds=1)


def test_nobody_there_is_said_so(loopback):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NotSent, match="could not be reached"):
        post(f"http://127.0.0.1:{port}/")


@pytest.fixture
def encrypted(loopback, tmp_path, monkeypatch):
    """A receiver over TLS that is called hooks.example.com, whose authority this machine trusts."""
    made = certificates.prepare(tmp_path, ["hooks.example.com"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    leads_to(monkeypatch, "127.0.0.1")
    with receivers.receiver(context) as running:
        yield running


def test_a_certificate_is_verified_for_the_name_that_was_written(encrypted):
    assert post(f"https://hooks.example.com:{encrypted.port}/").status == 200
    assert encrypted.calls[0].headers["host"] == f"hooks.example.com:{encrypted.port}"
    with pytest.raises(NotSent, match="certificate is not trusted"):
        post(f"https://other.example.com:{encrypted.port}/")


def test_an_unknown_authority_is_not_trusted(encrypted, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NotSent, match="certificate is not trusted"):
        post(f"https://hooks.example.com:{encrypted.port}/")
    assert encrypted.calls == []


@pytest.mark.parametrize("said", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nX-A: b\r\n"])
def test_an_answer_that_is_cut_off_in_its_headers_is_none(loopback, receiver, said):
    def cut(handler):
        handler.wfile.write(said)

    receiver.answers[:] = [cut]
    with pytest.raises(NotSent, match="could not be reached or understood"):
        post(receiver.url)


def test_an_answer_that_is_cut_off_in_its_body_counts_by_its_status(loopback, receiver):
    def cut(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")

    receiver.answers[:] = [cut]
    reply = post(receiver.url)
    assert (reply.status, reply.body) == (200, b"abc")
