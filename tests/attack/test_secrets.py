"""Whatever secret is made or sent, neither the database nor any log holds it in clear."""

from __future__ import annotations

import base64
import logging
import re
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from policystore.accounts import sign_in
from policystore.accounts.models import ApiKey
from policystore.accounts.roles import Role
from policystore.integrations import delivery, event_catalog, outbox
from policystore.integrations.models import DeliveryAttempt, Integration
from policystore.runners.fetch import recorder
from tests import factories
from tests.integrations.test_pages import BOT, S3, SLACK, WEBHOOK

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL3guZXhhbXBsZSJ9.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
WRITTEN = {"header": "t0p-s3cret", "Slack": "x-s3cret", "bot": "xoxb-s3cret", "S3 id": "AKIA-s3cret"}
WRITTEN |= {"S3 key": "key-s3cret", "OIDC token": TOKEN}
REPOSITORY = "/v1/github/octo-org/hello-world/actions/"


def stored():
    """All bytes of the database: the files of SQLite, or every row of every table of PostgreSQL."""
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"])
        return b"".join(Path(name + end).read_bytes() for end in ("", "-wal") if Path(name + end).exists())
    rows = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            with cursor.copy(f"COPY (SELECT * FROM {connection.ops.quote_name(table)}) TO STDOUT") as copied:
                rows += [bytes(piece) for piece in copied]
    return b"".join(rows)


def forms(secret):
    """How a secret could stand there in clear: as it is, in hexadecimal digits, or in Base64."""
    clear = secret.encode()
    return clear, clear.hex().encode(), base64.b64encode(clear).rstrip(b"=")[:-1]


def shown_once(page, pattern):
    return re.search(pattern, page.content.decode()).group()


def use_everything(client, organization, owner):
    """Make, show, send and refuse a secret of each kind; returns those that the store made."""
    made = {"sign-in link": sign_in.issue_link(user=owner)}
    link = reverse("sign-in-link", args=[made["sign-in link"]])
    assert client.get(link).status_code == 200
    assert client.post(link).status_code == 302
    own = "/organizations/octo-org/settings/"
    page = client.post(f"{own}harden-runner-installation/regenerate/", {"kind": "vm", "slot": "primary"})
    made["runner key"] = shown_once(page, r"ps_vm_[A-Za-z0-9]{20,}")
    made["management key"] = shown_once(
        client.post(f"{own}management-keys/", {"name": "tf"}), r"ps_mgmt?_[A-Za-z0-9]{20,}"
    )
    for kind, values in (("webhook", WEBHOOK), ("slack", SLACK), ("slack", {**BOT, "name": "bot"}), ("s3", S3)):
        assert client.post(f"{own}integrations/new/{kind}/", values).status_code in (200, 302)
    made["signing secret"] = Integration.objects.get(name="siem").secrets["signing"]
    runner = {"authorization": f"vm-api-key {made['runner key']}"}
    fetch = f"{REPOSITORY}policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=job-1"
    assert client.get(fetch, headers=runner).status_code == 404
    assert client.get(fetch, headers={"authorization": f"vm-api-key {made['runner key']}x"}).status_code == 401
    recorder.flush()
    body = {"correlation_id": "job-1", "job": "build"}
    told = client.post(f"{REPOSITORY}runs/1/monitor", body, content_type="application/json").json()
    made["one-time key"] = told["one_time_key"]
    telemetry = f"{REPOSITORY}jobs/job-1/events"
    for key in (made["one-time key"], f"{made['one-time key']}x"):
        client.post(telemetry, [], content_type="application/json", headers={"x-one-time-key": key})
    policy = "/v1/github/octo-org/actions/policies/ci"
    for bearer, status in ((made["management key"], 404), (TOKEN, 401)):
        assert client.get(policy, headers={"authorization": f"Bearer {bearer}"}).status_code == status
    outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={"number": 1})
    delivery.deliver_due(seconds=20)
    return made


@pytest.fixture
def every_statement():
    """Each statement is logged with its values, too."""
    connection.force_debug_cursor = True
    yield
    connection.force_debug_cursor = False


def test_neither_the_database_nor_a_log_holds_a_secret(settings, caplog, every_statement):
    settings.OUTBOX_ALLOWED_NETWORKS = []
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "django.db.backends")
    organization = factories.organization("octo-org")
    owner, client = factories.member(organization, Role.OWNER), Client(raise_request_exception=False)
    made = use_everything(client, organization, owner)
    session = client.cookies["sessionid"].value
    assert ApiKey.objects.count() == 2
    assert DeliveryAttempt.objects.exists()
    database, logs = stored(), caplog.text.encode()
    # What is known to be there is found, so that nothing is overlooked by how it is looked for.
    assert b"hello-world" in database
    assert b"AccountEvent" in logs or b"accounts_accountevent" in logs
    for what, secret in {**made, **WRITTEN}.items():
        for form in forms(secret):
            assert form not in database, f"the database holds the {what}"
    statements = [record for record in caplog.records if record.name == "django.db.backends"]
    others = "\n".join(record.getMessage() for record in caplog.records if record not in statements)
    for what, secret in {**made, **WRITTEN}.items():
        assert secret.encode() not in logs, f"a log holds the {what}"
    # Django looks sessions up by their key; apart from these statements, which nobody logs, no line has it.
    assert session not in others
