"""What the store logs: what went wrong, on one line, without a secret."""

import io
import json
import logging
import logging.config
import re
from contextlib import contextmanager, redirect_stderr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.accounts import api_keys
from policystore.runners.protocol import one_time_key
from policystore.web import request_log
from policystore.web.redaction import SECRETS, may_contain_secret, redact
from policystore.web.request_log import RequestLog

SECRET = "v8Kq2mXw7RzT5yLd9NcF3hGj6BpS4aQe1UoZiVtM0xYrWk8Hn2Jf"
GITHUB_TOKEN = "gho_" + "a1B2" * 9
PIECES = [
    *("/v1/github/octo-org", "repository_1", "/sign-in/link/", "ps_vm_", "gho_", "github_pat_", "xoxb-", "eyJ"),
    *(
        "hooks.slack.com/services/",
        "Bearer",
        " ",
        "\t",
        "token=",
        "state",
        "https://a:b@",
        "abcdefghijklmnopqr",
        ".",
        "é",
    ),
]
JSON_WEB_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl"


@pytest.fixture
def written():
    """Logs to a text through the store's own formatter."""
    with writing("text", "policystore.tests.logs") as written:
        yield written


@contextmanager
def writing(form, name):
    """A logger, and the text that it writes in this form."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    configured = dict(request_log.configuration()["formatters"][form])
    handler.setFormatter(configured.pop("()")(**configured))
    logger = logging.getLogger(name)
    propagate, level = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield logger, text
    logger.removeHandler(handler)
    logger.propagate = propagate
    logger.setLevel(level)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Forbidden: /sign-in/link/Zm9vYmFy-_x/", "Forbidden: /sign-in/link/…/"),
        ("Authorization: vm-api-key some.thing.odd", "Authorization: vm-api-key …"),
        ("'authorization': 'Bearer abcdefghijkl', 'a': 1", "'authorization': 'Bearer …', 'a': 1"),
        ("postgresql://user:pa:ssw@host/name is away", "postgresql://user:…@host/name is away"),
        ("postgresql://user@host/name is away", "postgresql://user@host/name is away"),
        ("/auth/github/login/callback/?code=abc&state=def", "/auth/github/login/callback/?code=…&state=…"),
        (f"token {GITHUB_TOKEN} refused", "token gho_… refused"),
        (f"claims of {JSON_WEB_TOKEN}.", "claims of eyJ…."),
        (
            "posting to https://hooks.slack.com/services/T0/B0/xyzzyxyzzy",
            "posting to https://hooks.slack.com/services/…",
        ),
        ("Not Found: /organizations/octo-org/policy-store/7/", "Not Found: /organizations/octo-org/policy-store/7/"),
        ("The job to clear expired sessions failed", "The job to clear expired sessions failed"),
    ],
)
def test_secrets_are_redacted_and_nothing_else(said, left):
    assert redact(said) == left


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_text_that_cannot_contain_a_secret_has_nothing_to_redact(text):
    assert may_contain_secret(text) or redact(text) == text


@pytest.mark.parametrize("kind", ["vm", "arc", "management"])
def test_no_api_key_is_logged(kind):
    clear = api_keys.new_key(kind).clear
    redacted = redact(f"refused {clear} again")
    assert clear[8:] not in redacted
    assert redacted.startswith("refused ps_")
    assert redacted.endswith("… again")


def test_no_one_time_key_is_logged():
    key = one_time_key("octo-org", "hello-world", "c1", "7")
    assert redact(f"X-One-Time-Key: {key}") == "X-One-Time-Key: ps_otk_…"


@pytest.mark.parametrize("name", SECRETS)
def test_the_stores_own_secrets_are_redacted_whatever_they_look_like(monkeypatch, name):
    monkeypatch.setenv(name, f"{SECRET},another-secret")
    assert redact(f"<{SECRET}> <another-secret>") == "<…> <…>"


def test_a_client_cannot_write_lines_of_its_own(written):
    logger, text = written
    logger.warning("Not Found: %s", "/x\r\n2026-01-01 ERROR forged\x1b[2J\u2028\x85")
    assert len(text.getvalue().splitlines()) == 1
    assert "\\r\\n2026-01-01 ERROR forged\\x1b[2J\\u2028\\x85" in text.getvalue()


def test_a_failure_is_told_with_its_traceback_and_without_its_secrets(written):
    logger, text = written
    try:
        raise RuntimeError(f"no answer to Bearer {GITHUB_TOKEN}")
    except RuntimeError:
        logger.exception("A request failed")
    lines = text.getvalue().splitlines()
    assert " ERROR " in lines[0]
    assert lines[0].endswith("A request failed")
    assert lines[-1] == "RuntimeError: no answer to Bearer …"
    assert GITHUB_TOKEN not in text.getvalue()


def test_as_json_a_failure_is_one_line_without_its_secrets():
    with writing("json", "policystore.tests.logs") as (logger, text):
        try:
            raise RuntimeError(f'no answer to "Bearer {GITHUB_TOKEN}"')
        except RuntimeError:
            logger.exception('A "request"\nfailed with vm-api-key %s', "abcdefghijk")
    (line,) = text.getvalue().splitlines()
    told = json.loads(line)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])
    assert (told["level"], told["logger"], told["request_id"]) == ("ERROR", "policystore.tests.logs", "")
    assert told["message"] == 'A "request"\nfailed with vm-api-key …'
    assert told["exception"].splitlines()[-1] == 'RuntimeError: no answer to "Bearer …"'


@pytest.mark.parametrize(
    ("mode", "chosen", "form"),
    [
        ("production", "", "json"),
        ("production", "text", "text"),
        ("local", "", "text"),
        ("local", "json", "json"),
    ],
)
def test_production_logs_json_and_a_local_store_text_unless_told_otherwise(monkeypatch, mode, chosen, form):
    monkeypatch.setenv("POLICYSTORE_MODE", mode)
    monkeypatch.setenv("LOG_FORMAT", chosen)
    assert request_log.configuration()["handlers"]["stderr"]["formatter"] == form


class TestRequests:
    """What a request leaves in the log."""

    @pytest.fixture(params=["json", "text"])
    def form(self, request):
        return request.param

    def ask(self, form, path="/v1/x", *, application=None, log=True, **environ):
        """The answer's status and headers, and the lines that were written."""
        asked = {"REQUEST_METHOD": "GET", "PATH_INFO": path.encode().decode("latin-1"), **environ}
        answer = {}

        def start(status, headers, exc_info=None):
            answer.update(status=int(status[:3]), headers=dict(headers))

        with pytest.MonkeyPatch.context() as patched, writing(form, "policystore.access") as (_, text):
            patched.setenv("LOG_FORMAT", form)
            with redirect_stderr(text):
                body = b"".join(RequestLog(application or answering(204), log=log)(asked, start))
        return answer["status"], answer["headers"], text.getvalue().splitlines(), body

    def test_each_leaves_one_line_with_what_was_asked_and_answered(self):
        status, headers, (line,), _ = self.ask("json", QUERY_STRING="code=secret", REQUEST_METHOD="POST")
        told = json.loads(line)
        assert (status, told["method"], told["path"], told["status"]) == (204, "POST", "/v1/x", 204)
        assert told["duration_ms"] >= 0
        assert told["request_id"] == headers["X-Request-Id"]
        assert "secret" not in line

    def test_as_text_it_is_readable(self):
        _, headers, (line,), _ = self.ask("text")
        said = rf"\S+ \S+ INFO \d+ policystore\.access GET /v1/x 204 \d+\.\d ms request_id={headers['X-Request-Id']}"
        assert re.fullmatch(said, line), line

    @pytest.mark.parametrize("given", ["a", "7f1d0d0e-1b1a-4f9a-9f0e-0123456789ab", "A.b_c-9" * 18])
    def test_a_well_formed_id_is_kept(self, form, given):
        _, headers, (line,), _ = self.ask(form, HTTP_X_REQUEST_ID=given)
        assert headers["X-Request-Id"] == given
        assert given in line

    @pytest.mark.parametrize(
        "given", ["", " ", "a b", "a\nb", 'a"b', "a,b", "ü", "x" * 129, GITHUB_TOKEN, JSON_WEB_TOKEN]
    )
    def test_another_one_is_replaced(self, form, given):
        _, headers, (line,), _ = self.ask(form, HTTP_X_REQUEST_ID=given)
        assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-Id"])
        assert headers["X-Request-Id"] in line
        assert self.ask(form)[1]["X-Request-Id"] != headers["X-Request-Id"]

    def test_every_line_of_a_request_has_its_id_and_none_outside_of_it(self):
        logger = logging.getLogger("policystore.access")

        def application(environ, start_response):
            logger.warning("in the middle")
            return answering(200)(environ, start_response)

        _, headers, lines, _ = self.ask("json", application=application)
        assert [json.loads(line)["request_id"] for line in lines] == [headers["X-Request-Id"]] * 2
        assert request_log.REQUEST_ID.get() == ""

    @pytest.mark.parametrize(
        ("path", "left"),
        [
            ("/sign-in/link/Zm9vYmFy-_x/", "/sign-in/link/…/"),
            (f"/v1/github/{GITHUB_TOKEN}/x", "/v1/github/gho_…/x"),
            ("/v1/github/grüße/x", "/v1/github/grüße/x"),
        ],
    )
    def test_a_path_is_told_without_its_secrets(self, path, left):
        _, _, (line,), _ = self.ask("json", path)
        assert json.loads(line)["path"] == left

    def test_a_path_cannot_write_lines_of_its_own(self, form):
        _, _, lines, _ = self.ask(form, "/x\r\n2026-01-01 ERROR forged\u2028")
        assert len(lines) == 1

    def test_what_fails_before_there_is_an_answer_is_told_and_answered(self, form):
        def application(environ, start_response):
            raise RuntimeError("unforeseen")

        status, headers, lines, body = self.ask(form, application=application)
        assert (status, headers["Content-Type"]) == (500, "application/json")
        assert json.loads(body)["error"] == "internal_error"
        assert "unforeseen" in "".join(lines)
        assert headers["X-Request-Id"] in lines[-1]

    def test_lines_can_be_left_out(self, form):
        assert self.ask(form, log=False)[2] == []


def answering(status):
    """A WSGI application that always answers so."""

    def application(environ, start_response):
        start_response(f"{status} Whatever", [("X-Other", "kept")])
        return [b""]

    return application


def test_the_configuration_is_one_that_logging_takes():
    before = logging.getLogger("gunicorn.error").level
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logging.config.dictConfig(request_log.configuration(gunicorn_error="error"))
        assert logging.getLogger("gunicorn.error").level == logging.ERROR
        assert isinstance(root.handlers[0].formatter, logging.Formatter)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("gunicorn.error").setLevel(before)
