"""What gunicorn cannot read as HTTP is answered as the store answers, by sockets of the test's own."""

import json
import re
import socket
import time
from contextlib import closing

import pytest
from gunicorn.http import errors

from policystore.web import gunicorn_worker
from tests.operations.production import HOST, Production

pytestmark = pytest.mark.production

ROUTE, PAGE = "/v1/github/octo-org/actions/policies/ci", "/sign-in/"
SECRET = "vm-api-key secret-of-the-client"
CHUNKED = "Transfer-Encoding: chunked\r\n"


def asked(path=ROUTE, *, line="POST {} HTTP/1.1", more="", body=""):
    return f"{line.format(path)}\r\nHost: {HOST}\r\nAuthorization: {SECRET}\r\n{more}\r\n{body}"


# The request, and the status and code of the answer that it must get.
UNREADABLE = {
    "no HTTP at all": ("\x16\x03\x01\x02\r\n\r\n", 400, "malformed_request_line"),
    "one word": ("HELLO\r\n\r\n", 400, "malformed_request_line"),
    "no address": (asked(line="GET HTTP/1.1"), 400, "malformed_request_line"),
    "spaces in the address": (asked(line="GET {}?workflow=a b c HTTP/1.1"), 400, "malformed_request_line"),
    "a method that is none": (asked(line="G@T {} HTTP/1.1"), 400, "malformed_method"),
    "a method in small letters": (asked(line="get {} HTTP/1.1"), 400, "malformed_method"),
    "another protocol": (asked(line="GET {} SMTP/1.1"), 400, "malformed_request_line"),
    "another version": (asked(line="GET {} HTTP/9.9"), 400, "unsupported_http_version"),
    "a long address": (asked(line="GET {}?a=" + "x" * 9_000 + " HTTP/1.1"), 414, "address_too_long"),
    "a long header": (asked(more=f"X-Long: {'x' * 9_000}\r\n"), 431, "headers_too_large"),
    "many headers": (asked(more="".join(f"X-{n}: 1\r\n" for n in range(150))), 431, "headers_too_large"),
    "a header without a colon": (asked(more="no colon\r\n"), 400, "malformed_header"),
    "a header without a name": (asked(more=": value\r\n"), 400, "malformed_header"),
    "a space before the colon": (asked(more="X-A : value\r\n"), 400, "malformed_header"),
    "a control character": (asked(more="X-A: a\0b\r\n"), 400, "malformed_header"),
    "a header in two lines": (asked(more="X-A: a\r\n b\r\n"), 400, "malformed_header"),
    "a length that is no number": (asked(more="Content-Length: many\r\n"), 400, "malformed_header"),
    "two lengths": (asked(more="Content-Length: 1\r\nContent-Length: 2\r\n", body="ab"), 400, "malformed_header"),
    "a length and chunks": (asked(more=f"Content-Length: 3\r\n{CHUNKED}", body="0\r\n\r\n"), 400, "malformed_header"),
    "an unknown coding": (asked(more="Transfer-Encoding: rot13\r\n"), 400, "unsupported_transfer_coding"),
    "an expectation": (asked(more="Expect: miracles\r\n"), 417, "expectation_failed"),
    "a chunk without a size": (asked(more=CHUNKED, body="zz\r\nabc\r\n0\r\n\r\n"), 400, "malformed_chunks"),
    "a chunk of less than none": (asked(more=CHUNKED, body="-3\r\nabc\r\n0\r\n\r\n"), 400, "malformed_chunks"),
    "a chunk that is longer than it says": (asked(more=CHUNKED, body="2\r\nabc\r\n0\r\n\r\n"), 400, "malformed_chunks"),
    "a bad extension of a chunk": (asked(more=CHUNKED, body="3;a=\rb\r\nabc\r\n0\r\n\r\n"), 400, "malformed_chunks"),
    "a bad trailer": (asked(more=CHUNKED, body="3\r\nabc\r\n0\r\nno colon\r\n\r\n"), 400, "malformed_header"),
    "chunks that end too early": (asked(more=CHUNKED, body="9\r\nabc"), 400, "unreadable_body"),
}


@pytest.fixture(scope="module")
def web(production):
    running = Production(production.settings, WEB_CONCURRENCY="1")
    yield running
    running.end()


def answer(web, *parts):
    """Status, headers and body that come back for these parts, each sent in a packet of its own and no more after."""
    with closing(socket.create_connection(("127.0.0.1", web.port), timeout=20)) as connection:
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.2)
            connection.sendall(part.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, body = received.decode("latin-1").partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    return int(line.split()[1]), dict(header.split(": ", 1) for header in headers), body


@pytest.mark.parametrize("name", UNREADABLE)
def test_it_is_answered_as_json_with_a_code_and_a_sentence(web, name):
    request, expected, code = UNREADABLE[name]
    status, headers, body = answer(web, request)
    told = json.loads(body)
    assert (status, headers["Content-Type"]) == (expected, "application/json")
    assert told["error"] == code
    assert re.fullmatch(r"[A-Z].*[.]", told["message"])
    assert int(headers["Content-Length"]) == len(body)
    assert (headers["Connection"], headers["Cache-Control"]) == ("close", "no-store")


def test_nothing_that_was_sent_comes_back_or_into_the_log(web):
    for path in (ROUTE, PAGE):
        for request, _, _ in UNREADABLE.values():
            assert "secret" not in answer(web, request.replace(ROUTE, path))[2]
    for place in ("Authorization", "Authorization\t", "\tAuthorization"):
        request = f"GET {ROUTE} HTTP/1.1\r\nHost: {HOST}\r\n{place} : {SECRET}\r\n\r\n"
        assert answer(web, request)[0] == 400
    assert "secret-of-the-client" not in web.said
    assert "Traceback" not in web.said


def test_what_is_wrong_in_a_later_packet_is_answered_all_the_same(web):
    request = UNREADABLE["a bad trailer"][0]
    status, headers, body = answer(web, request[:20], request[20:200], request[200:])
    assert (status, headers["Content-Type"], json.loads(body)["error"]) == (400, "application/json", "malformed_header")


def test_the_store_goes_on_and_has_logged_each_with_its_code(web):
    told = [answer(web, request)[0] for request, _, _ in UNREADABLE.values()]
    assert max(told) < 500
    assert all(code in web.said for _, _, code in UNREADABLE.values())
    assert answer(web, f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\n\r\n")[0] == 200


@pytest.mark.parametrize("error", [ValueError(), SystemExit(1), errors.InvalidResponseHeader("X: \n")], ids=repr)
def test_what_the_store_itself_does_wrong_is_not_the_clients_fault(error):
    head, _, body = gunicorn_worker.response_to(error).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert json.loads(body)["error"] == "internal_error"
