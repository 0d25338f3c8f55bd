"""`manage.py doctor`: what it says of an installation, and its exit code."""

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import requests
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from policystore.accounts import api_keys
from policystore.accounts.models import SYSTEM, ApiKey
from policystore.accounts.roles import Role
from policystore.integrations.models import Integration, OutboxMessage
from policystore.inventory.models import Organization
from policystore.operations import certificates, doctor
from policystore.operations.doctor import installation
from policystore.operations.models import Heartbeat
from policystore.policies.models import Policy
from tests import factories
from tests.both_databases import clean_environment
from tests.operations.production import migrated
from tests.operations.running import ROOT

pytestmark = pytest.mark.django_db

SQLITE = "sqlite" in django_settings.DATABASES["default"]["ENGINE"]
KEY = {"kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig", "e": "AQAB", "n": "0vx7" * 86}
Usage = namedtuple("Usage", "total used free")


class Issuer(BaseHTTPRequestHandler):
    """An OIDC issuer that publishes one key."""

    def do_GET(self):
        address = f"http://{self.headers['Host']}/keys"
        reported = {"keys": [KEY]} if self.path == "/keys" else {"jwks_uri": address}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(reported).encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def issuer():
    server = HTTPServer(("127.0.0.1", 0), Issuer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def sound(settings, issuer, tmp_path):
    """An installation without problems."""
    settings.OIDC_ISSUERS = [issuer]
    settings.DATA_DIR = tmp_path
    Heartbeat.beat(Heartbeat.WORKER)


def examined():
    """What the doctor says by check, as (level, message), and its exit code."""
    out = io.StringIO()
    try:
        call_command("doctor", "--json", stdout=out)
        code = 0
    except SystemExit as ended:
        code = ended.code
    reported = json.loads(out.getvalue())
    assert reported["healthy"] is (code == 0)
    return {check["name"]: (check["level"], check["message"]) for check in reported["checks"]}, code


def said_of(name, *, level):
    """The message of this check, which found this much; nothing else is wrong."""
    reported, code = examined()
    assert reported[name][0] == level, reported[name]
    assert code == (1 if level == "problem" else 0), reported
    assert [other for other in reported if reported[other][0] == "problem" and other != name] == []
    return reported[name][1]


def test_a_sound_installation_has_nothing_to_mend():
    factories.member(factories.organization(), Role.OWNER)
    reported, code = examined()
    assert code == 0
    assert {level for level, _ in reported.values()} <= {"ok", "warning"}
    expected = {*doctor.WITHOUT_DATABASE, *doctor.WITHOUT_TABLES, *doctor.WITH_TABLES}
    only_elsewhere = {"secrets", "proxy", "github", "organizations", "certificates", "newer release", "pooler"}
    only_elsewhere |= {"clock", "encoding", "connections"} if SQLITE else {"files", "integrity"}
    assert set(reported) == expected - only_elsewhere
    assert all(message.endswith((".", ")")) for _, message in reported.values())


def test_as_text_it_is_one_line_a_check_and_a_sum():
    Heartbeat.objects.all().delete()
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", stdout=out)
    *lines, summary = out.getvalue().splitlines()
    assert ended.value.code == 1
    assert [line for line in lines if line.startswith("problem")] == [
        f"problem  {'worker':{13}}  No worker has ever run; start `manage.py work`."
    ]
    assert summary.startswith("Problems: 1, ")


def test_a_worker_that_is_gone_is_told():
    Heartbeat.objects.update(at=timezone.now() - timedelta(minutes=10))
    assert said_of("worker", level="problem").startswith("No worker for 6")


def test_a_policy_that_was_changed_in_the_database_is_named():
    policy = factories.policy(factories.organization())
    Policy.objects.filter(pk=policy.pk).update(reply="{}")
    assert said_of("tampering", level="problem") == (
        "The database was changed outside Policy Store. octo-org: policy baseline: The column “reply” of the policy "
        "differs from the history."
    )


def test_a_database_that_is_too_old_is_told(monkeypatch):
    monkeypatch.setattr(doctor.database, "LEAST_SQLITE", (99, 1))
    monkeypatch.setattr(doctor.database, "LEAST_POSTGRESQL", 99)
    needed = "99.1" if SQLITE else "99"
    assert said_of("database", level="problem").endswith(f" is too old; the store needs {needed} or newer.")


def test_a_database_that_is_away_is_told_and_the_rest_still_examined(monkeypatch):
    def refuse(seconds, look):
        raise OperationalError("connection to postgresql://user:pa55word@10.1.2.3 refused\nmore")

    monkeypatch.setattr(doctor.database.statement_timeout, "run_with_timeout", refuse)
    reported, code = examined()
    assert code == 1
    level, message = reported["database"]
    assert level == "problem"
    assert message.endswith("cannot be used: connection to postgresql://user:…@10.1.2.3 refused")
    assert "static files" in reported
    assert not set(reported) & {*doctor.WITHOUT_TABLES, *doctor.WITH_TABLES}


def test_a_check_that_fails_itself_is_told_and_keeps_no_other_from_its_turn(monkeypatch):
    def broken():
        raise RuntimeError("unforeseen")

    monkeypatch.setitem(doctor.WITH_TABLES, "outbox", broken)
    assert said_of("outbox", level="problem") == "The check itself failed: RuntimeError: unforeseen."


def answered(monkeypatch, **texts):
    """Let PostgreSQL say otherwise of these."""
    one = doctor.database._one
    asked = {f"SHOW {name}": text for name, text in texts.items()}
    monkeypatch.setattr(doctor.database, "_one", lambda statement: asked.get(statement) or one(statement))


@pytest.mark.production
def test_a_database_that_lacks_letters_is_told(monkeypatch):
    answered(monkeypatch, server_encoding="SQL_ASCII")
    assert said_of("encoding", level="problem").startswith(
        "The database's encoding is SQL_ASCII, which cannot store every"
    )


@pytest.mark.production
def test_a_postgresql_before_its_release_is_no_fault(monkeypatch):
    answered(monkeypatch, server_version="99beta1", server_version_num="990000")
    assert examined()[0]["database"][1].startswith("PostgreSQL 99beta1, ")


@pytest.mark.production
@pytest.mark.django_db(transaction=True)
def test_a_table_that_somebody_holds_is_told_in_time(monkeypatch):
    monkeypatch.setattr(doctor.database, "SECONDS", 0.2)
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE integrations_integration")
        reported, code = examined()
        assert code == 1
        assert reported["integrations"] == (
            "problem",
            "The database refused this check: canceling statement due to lock timeout.",
        )
    finally:
        other.close()


def test_messages_that_were_given_up_are_told():
    integration = factories.integration(factories.organization())
    now = timezone.now()
    OutboxMessage.objects.create(
        integration=integration, webhook_id="m", kind="test", payload="{}", state="dead",
        created_at=now, expires_at=now, next_at=now,
    )  # fmt: skip
    assert said_of("given up", level="warning").startswith("1 message to integrations was given up")


def test_secrets_that_cannot_be_decrypted_are_told(settings):
    factories.integration(factories.organization(), name="siem")
    assert examined()[0]["integrations"][0] == "ok"
    settings.ENCRYPTION_KEYS = ["another"]
    said = said_of("integrations", level="problem")
    assert said.startswith("The secrets of siem of octo-org cannot be read; restore the former value")
    # A deleted one has none.
    Integration.objects.update(deleted_at=timezone.now())
    assert examined()[0]["integrations"][0] == "ok"


def test_old_keys_that_nobody_uses_are_told():
    organization = factories.organization()
    for name in ("new", "old", "used", "revoked"):
        factories.management_key(organization, name)
    month = timezone.now() - timedelta(days=31)
    ApiKey.objects.exclude(name="new").update(created_at=month)
    ApiKey.objects.filter(name="used").update(last_used_at=month)
    api_keys.revoke(key=ApiKey.objects.get(name="revoked"), by=SYSTEM)
    said = said_of("keys", level="warning")
    assert said.startswith("1 API key was never used")
    assert f"{ApiKey.objects.get(name='old').hint} of octo-org" in said


def test_organizations_without_an_owner_are_told():
    for name in ("owned", "audited", "left", "empty"):
        factories.organization(name)
    factories.member(Organization.objects.get(key="owned"), Role.OWNER, "ann")
    factories.member(Organization.objects.get(key="audited"), Role.AUDITOR, "ben")
    gone = factories.member(Organization.objects.get(key="left"), Role.OWNER, "cyd")
    gone.is_active = False
    gone.save(update_fields=["is_active"])
    assert "without an owner: audited, empty, left." in said_of("owners", level="warning")


def test_an_issuer_that_does_not_answer_is_told(settings):
    settings.OIDC_ISSUERS = [*settings.OIDC_ISSUERS, "http://127.0.0.1:1"]
    assert "http://127.0.0.1:1 does not return its keys" in said_of("issuers", level="warning")


@pytest.mark.parametrize(
    ("status", "body", "level", "begins"),
    [
        (200, '{"id": 1}', "ok", "The organizations on GitHub have the ids"),
        (
            200,
            '{"id": 99}',
            "problem",
            "The GitHub organization octo-org has the id 99, but this store belongs to the id 1",
        ),
        (404, "{}", "warning", "GitHub has no organization named octo-org"),
    ],
)
def test_an_organization_that_took_over_the_login_is_reported(monkeypatch, settings, status, body, level, begins):
    settings.GITHUB_CLIENT_ID, settings.GITHUB_ALLOWED_ORGANIZATIONS = "client", ["octo-org"]
    Organization.objects.create(login="octo-org", key="octo-org", github_id=1)
    answers_as(monkeypatch, status, body)
    assert said_of("organizations", level=level).startswith(begins)


@pytest.mark.parametrize(("status", "body"), [(403, "{}"), (500, ""), (200, "x"), (200, "[]"), (200, '{"id": "1"}')])
def test_where_github_does_not_say_who_has_the_login_nothing_is_reported(monkeypatch, settings, status, body):
    settings.GITHUB_CLIENT_ID, settings.GITHUB_ALLOWED_ORGANIZATIONS = "client", ["octo-org"]
    Organization.objects.create(login="octo-org", key="octo-org", github_id=1)
    answers_as(monkeypatch, status, body)
    assert installation.organizations_are_the_same() is None


def answers_as(monkeypatch, status, body):
    response = requests.Response()
    response.status_code, response._content = status, body.encode()
    for verb in ("get", "head"):
        monkeypatch.setattr(requests, verb, lambda *args, **more: response)


def test_github_that_cannot_be_reached_is_told(settings):
    settings.GITHUB_CLIENT_ID, settings.GITHUB_URL = "id", "http://127.0.0.1:1"
    assert said_of("github", level="problem").startswith("http://127.0.0.1:1 cannot be reached")


def test_a_style_sheet_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(doctor.installation, "STATIC_FILES", ("css/layers.css", "css/nowhere.css"))
    assert said_of("static files", level="problem").startswith("The static file css/nowhere.css is missing")


def test_the_static_files_that_it_looks_for_are_ones_that_pages_use():
    pages = "".join(path.read_text() for path in (ROOT / "templates").rglob("*.html"))
    assert [name for name in doctor.installation.STATIC_FILES if f"'{name}'" not in pages] == []


@pytest.mark.parametrize(("mebibytes", "level"), [(5000, "ok"), (500, "warning")])
def test_a_disk_that_fills_is_told(monkeypatch, mebibytes, level):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, mebibytes * 1024 * 1024))
    assert f" {mebibytes:,} MiB of free space" in said_of("room", level=level)


def test_a_disk_that_is_full_is_told(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 1024 * 1024))
    reported, code = examined()
    assert (reported["room"][0], code) == ("problem", 1)
    assert reported["room"][1].endswith("1 MiB of free space; the disk is full.")


@pytest.mark.parametrize(
    ("days", "level", "said"), [(300, "ok", "valid until"), (10, "warning", "restart"), (-1, "problem", "expired on")]
)
def test_when_certificates_end_is_told(settings, monkeypatch, days, level, said):
    monkeypatch.setattr(certificates, "SERVER_DAYS", days + 1)
    if days < 0:
        monkeypatch.setattr(certificates, "SERVER_DAYS", 0)
    certificates.prepare(settings.DATA_DIR / "tls", ["localhost"])
    if days < 0:
        monkeypatch.setattr(doctor.installation, "datetime", _Later)
    assert said in said_of("certificates", level=level)


class _Later(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz or UTC) + timedelta(days=1)


class TestInProduction:
    """What is only looked at there."""

    @pytest.fixture(autouse=True)
    def _production(self, settings):
        settings.PRODUCTION = True
        settings.SECURE_SSL_REDIRECT = settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
        settings.SECURE_HSTS_SECONDS = 31536000
        settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = settings.SECURE_HSTS_PRELOAD = True
        settings.SECRET_KEY = "v8Kq2mXw7RzT5yLd9NcF3hGj6BpS4aQe1UoZiVtM0xYrWk8Hn2Jf"
        settings.API_KEY_SECRET, settings.ENCRYPTION_KEYS = "another", ["a third"]
        settings.TRUST_FORWARDED_HEADERS = True

    def test_all_is_well(self):
        reported, code = examined()
        assert code == 0
        assert (reported["settings"][0], reported["secrets"][0], reported["proxy"][0]) == ("ok", "ok", "ok")

    def test_what_django_warns_of_is_told(self, settings):
        settings.SESSION_COOKIE_SECURE = False
        assert "(security.W0" in said_of("settings", level="problem")

    def test_secrets_that_hang_together_are_told(self, settings):
        settings.API_KEY_SECRET, settings.ENCRYPTION_KEYS = settings.SECRET_KEY, [settings.SECRET_KEY]
        assert said_of("secrets", level="warning").startswith("API_KEY_SECRET and ENCRYPTION_KEYS not set")

    def test_a_proxy_that_is_not_trusted_is_told(self, settings):
        settings.TRUST_FORWARDED_HEADERS = False
        assert said_of("proxy", level="warning").startswith("TRUST_FORWARDED_HEADERS is not set")

    def test_a_public_address_that_was_guessed_is_a_warning(self, settings, monkeypatch):
        settings.ALLOWED_HOSTS = ["store.example", "agent.api.stepsecurity.io"]
        settings.PUBLIC_URL = settings.RUNNER_URL = "https://store.example"
        assert said_of("public url", level="warning").startswith("PUBLIC_URL is not set")
        monkeypatch.setenv("PUBLIC_URL", "https://store.example")
        assert "https://store.example" in said_of("public url", level="ok")


@pytest.mark.parametrize("name", ["PUBLIC_URL", "RUNNER_URL"])
def test_a_public_address_that_the_store_refuses_is_a_problem(settings, name):
    setattr(settings, name, "https://store.example:8443")
    said = said_of("public url", level="problem")
    assert said.startswith(f"{name} is https://store.example:8443, but ALLOWED_HOSTS does not list store.example")


@pytest.mark.parametrize(("seconds", "level"), [(0, "ok"), (10, "warning"), (600, "problem")])
def test_clocks_that_differ_are_told(monkeypatch, seconds, level):
    class Off(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=seconds)

    monkeypatch.setattr(doctor.database, "datetime", Off)
    if SQLITE:
        # It has the clock of the process that asks.
        assert "clock" not in examined()[0]
    else:
        said_of("clock", level=level)


def store(folder, *arguments):
    """Run a command on the store of this folder."""
    environment = {**clean_environment(), "POLICYSTORE_DATA_DIR": str(folder), "OIDC_ISSUERS": "http://127.0.0.1:1"}
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=180)


@pytest.mark.browser
def test_the_command_tells_of_a_real_store_and_ends_with_its_code(tmp_path):
    folder = tmp_path / "store"
    missing = store(folder, "doctor")
    assert missing.returncode == 1
    (found,) = [line for line in missing.stdout.splitlines() if line.startswith("problem")]
    assert found.endswith("was not applied; run `manage.py migrate`.")
    assert missing.stderr == ""
    migrated(folder)
    with closing(sqlite3.connect(folder / "policystore.sqlite3")) as database:
        database.execute("INSERT INTO operations_heartbeat VALUES ('worker', 'x', '2999-01-01 00:00:00')")
        database.execute("CREATE TABLE damaged (id integer primary key, other integer references nowhere (id))")
        database.commit()
        sound = store(folder, "doctor")
        assert (sound.returncode, sound.stdout.splitlines()[-1]) == (0, "Problems: 0, warnings: 1.")
        # A row that refers to nothing, as after somebody changed the file by hand.
        database.execute("CREATE TABLE nowhere (id integer primary key)")
        database.execute("INSERT INTO damaged VALUES (1, 7)")
        database.commit()
    os.chmod(folder, 0o755)
    damaged = store(folder, "doctor")
    assert damaged.returncode == 1
    assert "warning  files          Other users of this machine can read the database" in damaged.stdout
    (folder / "secret-key").chmod(0o644)
    damaged = store(folder, "doctor", "--json")
    assert damaged.returncode == 1
    checks = json.loads(damaged.stdout)["checks"]
    found = {check["name"]: check["message"] for check in checks if check["level"] == "problem"}
    assert set(found) == {"files", "integrity"}
    assert "secret-key can be read by other users" in found["files"]
    assert "damaged: row 1 refers to a missing row of nowhere" in found["integrity"]


def test_connections_are_left_as_they_were():
    examined()
    assert connection.is_usable()
