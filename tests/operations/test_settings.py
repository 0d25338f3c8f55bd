"""What the store takes from its environment, and how it refuses to start on what is missing or unsafe."""

import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from tests.both_databases import clean_environment
from tests.operations.running import ROOT
from tests.store_variables import read_by_the_store

SECRET = "v8Kq2mXw7RzT5yLd9NcF3hGj6BpS4aQe1UoZiVtM0xYrWk8Hn2Jf"
PRODUCTION = {
    "POLICYSTORE_MODE": "production",
    "SECRET_KEY": SECRET,
    "ALLOWED_HOSTS": "policystore.example.com",
    "DATABASE_URL": "postgresql://user:password@127.0.0.1/policystore",
    "GITHUB_CLIENT_ID": "id",
    "GITHUB_CLIENT_SECRET": "secret",
    "GITHUB_ALLOWED_ORGANIZATIONS": "octo-org",
}
REQUIRED = sorted(set(PRODUCTION) - {"POLICYSTORE_MODE"})
NUMBERS = (
    "PAGE_SECONDS",
    "OPEN_CALLS_PER_MINUTE",
    "OPEN_MISSES_PER_MINUTE",
    "JOB_RUN_OPEN_HOURS",
    "EVENT_RETENTION_DAYS",
    "JOB_RUN_RETENTION_DAYS",
    "BASELINE_STABLE_RUNS",
    "BASELINE_UNSTABLE_RUNS",
    "IMPACT_DAYS",
)
UNSAFE = [
    ("POLICYSTORE_MODE", "prod"),
    ("SECRET_KEY", "short"),
    ("SECRET_KEY", "ab" * 40),
    ("SECRET_KEY", f"django-insecure-{SECRET}"),
    ("SECRET_KEY_FALLBACKS", f"{SECRET},short"),
    ("API_KEY_SECRET", "short"),
    ("ENCRYPTION_KEYS", "short"),
    ("HISTORY_SIGNING_SECRET", "short"),
    ("METRICS_TOKEN", "short"),
    ("LOG_FORMAT", "xml"),
    ("ACCESS_LOG", "some"),
    ("ALLOWED_HOSTS", "*"),
    ("ALLOWED_HOSTS", "policystore.example.com,*"),
    ("ALLOWED_HOSTS", "."),
    ("ALLOWED_HOSTS", "https://policystore.example.com"),
    ("DATABASE_URL", "sqlite:///store.sqlite3"),
    ("DATABASE_URL", "mysql://user@host/name"),
    ("DATABASE_URL", "postgresql://user@host:no-port/name"),
    ("DATABASE_URL", "postgresql://user:password@127.0.0.1:5432/"),
    ("PUBLIC_URL", "http://policystore.example.com"),
    ("PUBLIC_URL", "policystore.example.com"),
    ("PUBLIC_URL", "https://policystore.example.com/store"),
    ("PUBLIC_URL", "https://policystore.example.com?x"),
    ("PUBLIC_URL", "https://user@policystore.example.com"),
    ("PUBLIC_URL", "https://policystore.example.com:port"),
    ("PUBLIC_URL", "https://:443"),
    ("RUNNER_URL", "http://policystore.example.com"),
    ("RUNNER_URL", "https://policystore.example.com/v1"),
    ("GITHUB_URL", "http://github.example.com"),
    ("GITHUB_URL", "github.example.com"),
    ("GITHUB_ALLOWED_ORGANIZATIONS", "octo-org:"),
    ("GITHUB_ALLOWED_ORGANIZATIONS", "octo-org:x"),
    ("GITHUB_ALLOWED_ORGANIZATIONS", "octo-org:0"),
    ("GITHUB_ALLOWED_ORGANIZATIONS", f"octo-org:{2**63}"),
    ("CSRF_TRUSTED_ORIGINS", "policystore.example.com"),
    ("CSRF_TRUSTED_ORIGINS", "https://a.example.com http://b.example.com"),
    ("OIDC_ISSUERS", "http://issuer.example.com"),
    ("AGENT_RELEASE_URL", "http://agent.example.com"),
    ("JOB_HOOKS_URL", "ftp://hooks.example.com"),
    ("TRUST_FORWARDED_HEADERS", "maybe"),
    ("SECURE_COOKIES", "maybe"),
    ("IMPACT_DAYS", "3651"),
    ("EVENT_RETENTION_DAYS", "36501"),
    ("JOB_RUN_RETENTION_DAYS", "0"),
    ("JOB_RUN_OPEN_HOURS", "876001"),
    *((name, value) for name in NUMBERS for value in ("0", "-1", "many")),
]


def settings_with(monkeypatch, variables):
    """The settings module's names, run in this process with these variables alone."""
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"], **variables})
    return runpy.run_path(str(ROOT / "policystore" / "config" / "settings.py"))


def refusal_of(monkeypatch, variables):
    with pytest.raises(SystemExit) as ended:
        settings_with(monkeypatch, variables)
    return str(ended.value.code)


def start(*command, **variables):
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**clean_environment(), **variables},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def is_one_line_about(name, said):
    return re.fullmatch(rf"policystore: {name}: [^\n]{{10,200}}\.", said.rstrip("\n")) is not None


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, "", " "], ids=["unset", "empty", "blank"])
def test_production_does_not_start_without(monkeypatch, name, value):
    variables = {key: kept for key, kept in PRODUCTION.items() if key != name}
    said = refusal_of(monkeypatch, variables if value is None else {**variables, name: value})
    assert is_one_line_about(name, said), said


@pytest.mark.parametrize(("name", "value"), UNSAFE)
def test_production_does_not_start_with_an_unsafe(monkeypatch, name, value):
    said = refusal_of(monkeypatch, {**PRODUCTION, name: value})
    assert is_one_line_about(name, said), said
    # A secret or a database's password is not repeated.
    assert "SECRET" not in name or value not in said
    assert "user" not in said or name != "DATABASE_URL" or value not in said


@pytest.mark.parametrize(("name", "value"), [("WEB_CONCURRENCY", "0"), ("GUNICORN_LOG_LEVEL", "loud")])
def test_gunicorn_does_not_start_with_an_unusable(monkeypatch, name, value):
    monkeypatch.setattr(os, "environ", {**PRODUCTION, name: value})
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "policystore" / "config" / "gunicorn.py"))
    assert is_one_line_about(name, str(ended.value.code))


def test_the_web_process_is_for_production_unless_told_otherwise():
    ended = start(
        sys.executable, "-m", "gunicorn", "policystore.config.wsgi", "--config", "python:policystore.config.gunicorn"
    )
    assert (ended.returncode, is_one_line_about("SECRET_KEY", ended.stderr)) == (1, True)


def test_djangos_own_check_has_nothing_to_say_about_production():
    ended = start(sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING", **PRODUCTION)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "System check identified no issues (0 silenced).\n"


def test_production_is_strict(monkeypatch):
    settings = settings_with(monkeypatch, PRODUCTION)
    assert settings["DEBUG"] is False
    assert settings["SECURE_SSL_REDIRECT"] is True
    assert settings["SESSION_COOKIE_SECURE"] is settings["CSRF_COOKIE_SECURE"] is True
    assert settings["SESSION_COOKIE_NAME"] == "__Host-session"
    assert "SECURE_PROXY_SSL_HEADER" not in settings
    assert settings["DATABASES"]["default"]["ENGINE"] == "policystore.db.postgresql"


def test_cookies_cannot_be_made_insecure_in_production(monkeypatch):
    assert settings_with(monkeypatch, {**PRODUCTION, "SECURE_COOKIES": "0"})["SESSION_COOKIE_SECURE"] is True


def test_forwarded_headers_are_trusted_where_told(monkeypatch):
    settings = settings_with(monkeypatch, {**PRODUCTION, "TRUST_FORWARDED_HEADERS": "1"})
    assert settings["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "https://policystore.example.com"),
        ({"ALLOWED_HOSTS": ".internal.example, store.example, agent.api.stepsecurity.io"}, "https://store.example"),
        ({"PUBLIC_URL": "https://store.example:8443/"}, "https://store.example:8443"),
    ],
)
def test_the_public_address_is_set_or_the_first_allowed_host(monkeypatch, variables, address):
    values = settings_with(monkeypatch, {**PRODUCTION, **variables})
    assert values["PUBLIC_URL"] == values["RUNNER_URL"] == address


def test_without_a_single_allowed_host_the_public_address_must_be_set(monkeypatch):
    said = refusal_of(monkeypatch, {**PRODUCTION, "ALLOWED_HOSTS": ".internal.example"})
    assert said == "policystore: PUBLIC_URL: is not set; set it to an address such as https://policystore.example.com."


def test_a_local_store_needs_nothing_set(monkeypatch, tmp_path):
    settings = settings_with(monkeypatch, {"POLICYSTORE_DATA_DIR": str(tmp_path / "store")})
    assert settings["DATABASES"]["default"]["NAME"] == tmp_path / "store" / "policystore.sqlite3"
    again = settings_with(monkeypatch, {"POLICYSTORE_DATA_DIR": str(tmp_path / "store")})
    assert again["SECRET_KEY"] == settings["SECRET_KEY"]
    assert len(again["SECRET_KEY"]) >= 50
    assert settings["ALLOWED_HOSTS"] == ["127.0.0.1", "localhost", "[::1]"]


def test_a_github_enterprise_server_is_the_default_issuer_of_tokens(monkeypatch):
    settings = settings_with(monkeypatch, {**PRODUCTION, "GITHUB_URL": "https://github.example.com/"})
    assert settings["OIDC_ISSUERS"] == ["https://github.example.com/_services/token"]


def manual():
    return (ROOT / ".github" / "OPERATIONS.md").read_text(encoding="utf-8")


def documented():
    """The variables in the tables of the operator's manual."""
    rows = [line for line in manual().splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row.split("|")[1])]


def test_the_manual_documents_every_variable_once_and_no_other():
    assert sorted(documented()) == sorted(read_by_the_store())


def procfile():
    lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_the_procfile_has_release_web_fetch_and_worker_for_production():
    assert list(procfile()) == ["release", "web", "fetch", "worker"]
    assert all(command.startswith("POLICYSTORE_MODE=production ") for command in procfile().values())


def units():
    """The commands of the manual's systemd units."""
    return re.findall(r"ExecStart(?:Pre)?=/opt/policystore/\.venv/bin/([^`\n]+)", manual())


@pytest.mark.parametrize("number", range(4))
def test_each_command_of_the_systemd_units_is_one_that_the_store_has(number):
    assert len(units()) == 4
    program, *arguments = shlex.split(units()[number])
    ended = start(os.path.join(os.path.dirname(sys.executable), program), *arguments, **PRODUCTION | {"SECRET_KEY": ""})
    assert (ended.returncode, is_one_line_about("SECRET_KEY", ended.stderr)) == (1, True), ended.stderr


@pytest.mark.parametrize("name", ["release", "web", "fetch", "worker"])
def test_each_process_of_the_procfile_says_one_line_and_ends(name):
    # As a platform runs it, but with a setting that ends it at once: it got as far as the store's own code.
    programs = os.path.dirname(sys.executable)
    variables = {**PRODUCTION, "SECRET_KEY": "short", "PATH": f"{programs}:{os.environ['PATH']}", "PORT": "8321"}
    ended = start("/bin/sh", "-c", procfile()[name], **variables)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "policystore: SECRET_KEY: is too easy to guess; set it to a random text of at least 50 characters.\n"
    )
