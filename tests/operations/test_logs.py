"""What the store logs: what went wrong, on one line, without a secret."""

import io
import logging
import logging.config

import pytest

from policystore import logs
from policystore.accounts import keys
from policystore.runners.one_time_keys import one_time_key

SECRET = "v8Kq2mXw7RzT5yLd9NcF3hGj6BpS4aQe1UoZiVtM0xYrWk8Hn2Jf"
GITHUB_TOKEN = "gho_" + "a1B2" * 9
JSON_WEB_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl"


@pytest.fixture
def written():
    """Logs to a text through the store's own formatter."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    configured = logs.configuration()["formatters"]["line"]
    handler.setFormatter(configured["()"](fmt=configured["fmt"], style=configured["style"]))
    logger = logging.getLogger("policystore.tests.logs")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, text
    logger.removeHandler(handler)
    logger.propagate = True


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
def test_secrets_are_blotted_out_and_nothing_else(said, left):
    assert logs.blotted(said) == left


@pytest.mark.parametrize("kind", ["vm", "arc", "management"])
def test_no_api_key_is_logged(kind):
    clear = keys.new_key(kind).clear
    blotted = logs.blotted(f"refused {clear} again")
    assert clear[8:] not in blotted
    assert blotted.startswith("refused ps_")
    assert blotted.endswith("… again")


def test_no_one_time_key_is_logged():
    key = one_time_key("octo-org", "hello-world", "c1")
    assert logs.blotted(f"X-One-Time-Key: {key}") == "X-One-Time-Key: ps_otk_…"


@pytest.mark.parametrize("name", logs.SECRETS)
def test_the_stores_own_secrets_are_blotted_out_whatever_they_look_like(monkeypatch, name):
    monkeypatch.setenv(name, f"{SECRET},another-secret")
    assert logs.blotted(f"<{SECRET}> <another-secret>") == "<…> <…>"


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


def test_the_configuration_is_one_that_logging_takes():
    before = logging.getLogger("gunicorn.error").level
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logging.config.dictConfig(logs.configuration(gunicorn_error="error"))
        assert logging.getLogger("gunicorn.error").level == logging.ERROR
        assert isinstance(root.handlers[0].formatter, logs.BlottingFormatter)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("gunicorn.error").setLevel(before)
