"""Settings → Integrations."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from policystore.accounts.models import SYSTEM, AccountEvent
from policystore.accounts.roles import Role
from policystore.integrations import actions, delivery, event_catalog, outbox
from policystore.integrations.forms import S3Form, SlackForm, WebhookForm
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from tests import factories

pytestmark = pytest.mark.django_db

WEBHOOK = {
    "name": "siem",
    "events": ["detection", "policy.updated"],
    "address": "https://hooks.example.com/store",
    "method": "POST",
    "raw": "False",
    "headers": "Authorization: Bearer t0p-s3cret\nX-Team: security",
}
SLACK = {"name": "sec", "events": ["lockdown"], "webhook_url": "https://hooks.slack.example/services/T0/B0/x-s3cret"}
BOT = {"name": "sec", "events": ["lockdown"], "bot_token": "xoxb-s3cret", "channel": "#sec"}
S3 = {
    "name": "archive",
    "events": ["detection"],
    "bucket": "audit-log",
    "region": "eu-central-1",
    "access_key_id": "AKIA-s3cret",
    "secret_access_key": "key-s3cret",
}


@pytest.fixture
def owner(organization):
    client = Client()
    person = factories.member(organization, Role.OWNER)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def address(name, *arguments):
    return reverse(f"integrations:{name}", args=["octo-org", *arguments])


def add(client, kind, values):
    return client.post(address("new", kind), values)


def errors(response):
    assert response.status_code == 422
    return {name: " ".join(texts) for name, texts in response.context["form"].errors.items()}


def test_a_webhook_is_added_and_its_signing_secret_shown_once(owner):
    answer = add(owner, "webhook", WEBHOOK)
    made = Integration.objects.get()
    secret = made.secrets["signing"]
    assert secret in answer.content.decode()
    assert "no-store" in answer["cache-control"]
    assert made.secrets["headers"] == {"Authorization": "Bearer t0p-s3cret", "X-Team": "security"}
    assert made.config == {"address": "https://hooks.example.com/store", "method": "POST", "raw": False}
    assert b"s3cret" not in bytes(made.encrypted_secrets)
    assert AccountEvent.objects.filter(kind="integration added", subject="siem", actor="ann").exists()
    for page in (address("view", made.pk), address("edit", made.pk), address("list")):
        shown = owner.get(page).content.decode()
        assert "siem" in shown
        assert "s3cret" not in shown
        assert secret not in shown


@pytest.mark.parametrize(("kind", "values"), [("webhook", WEBHOOK), ("slack", SLACK), ("slack", BOT), ("s3", S3)])
def test_secrets_are_never_shown_again_and_kept_when_left_empty(owner, kind, values):
    add(owner, kind, values)
    made = Integration.objects.get()
    before = made.secrets
    assert "s3cret" in str(before)
    assert "s3cret" not in owner.get(address("edit", made.pk)).content.decode()
    kept = {name: value for name, value in values.items() if "s3cret" not in value} | {"name": "renamed"}
    assert owner.post(address("edit", made.pk), kept).status_code == 302
    made.refresh_from_db()
    assert (made.name, made.secrets) == ("renamed", before)
    assert "s3cret" not in "".join(AccountEvent.objects.values_list("detail", flat=True))


def test_a_refused_form_does_not_give_secrets_back(owner):
    for kind, values in (("slack", BOT), ("s3", S3)):
        answer = add(owner, kind, {**values, "name": ""})
        assert "name" in errors(answer)
        assert "s3cret" not in answer.content.decode()


def test_headers_are_replaced_and_removed(owner):
    add(owner, "webhook", WEBHOOK)
    made = Integration.objects.get()
    owner.post(address("edit", made.pk), {**WEBHOOK, "headers": "X-Other: 1"})
    made.refresh_from_db()
    assert made.secrets["headers"] == {"X-Other": "1"}
    owner.post(address("edit", made.pk), {**WEBHOOK, "headers": "", "drop_headers": "on"})
    made.refresh_from_db()
    assert made.secrets["headers"] == {}


def test_another_way_into_slack_replaces_the_first(owner):
    add(owner, "slack", SLACK)
    made = Integration.objects.get()
    assert owner.post(address("edit", made.pk), BOT).status_code == 302
    made.refresh_from_db()
    assert made.secrets == {"webhook_url": "", "bot_token": "xoxb-s3cret"}


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        ("webhook", {**WEBHOOK, "address": "hooks.example.com"}, "address"),
        ("webhook", {**WEBHOOK, "address": "https://u:p@hooks.example.com/"}, "address"),
        ("webhook", {**WEBHOOK, "address": "ftp://hooks.example.com/"}, "address"),
        ("webhook", {**WEBHOOK, "method": "GET"}, "method"),
        ("webhook", {**WEBHOOK, "events": []}, "events"),
        ("webhook", {**WEBHOOK, "events": ["weather"]}, "events"),
        ("webhook", {**WEBHOOK, "headers": "no colon"}, "headers"),
        ("webhook", {**WEBHOOK, "headers": "Host: other"}, "headers"),
        ("webhook", {**WEBHOOK, "headers": "Webhook-Id: 1"}, "headers"),
        ("webhook", {**WEBHOOK, "headers": "X Y: 1"}, "headers"),
        ("webhook", {**WEBHOOK, "headers": "X: ä"}, "headers"),
        ("webhook", {**WEBHOOK, "headers": "\n".join(f"X-{n}: 1" for n in range(21))}, "headers"),
        ("webhook", {**WEBHOOK, "name": "x" * 101}, "name"),
        ("slack", {**SLACK, "webhook_url": ""}, "webhook_url"),
        ("slack", {**SLACK, "webhook_url": "nothing"}, "webhook_url"),
        ("slack", {**SLACK, "channel": "#sec"}, "channel"),
        ("slack", {**SLACK, **BOT}, "bot_token"),
        ("slack", {**BOT, "channel": ""}, "channel"),
        ("slack", {**BOT, "bot_token": "xoxb 1"}, "bot_token"),
        ("s3", {**S3, "bucket": "A"}, "bucket"),
        ("s3", {**S3, "bucket": "a/b/c"}, "bucket"),
        ("s3", {**S3, "region": "eu central"}, "region"),
        ("s3", {**S3, "region": "evil.example/"}, "region"),
        ("s3", {**S3, "endpoint": "minio:9000"}, "endpoint"),
        ("s3", {**S3, "key_prefix": "a?b"}, "key_prefix"),
        ("s3", {**S3, "access_key_id": ""}, "access_key_id"),
        ("s3", {**S3, "secret_access_key": ""}, "secret_access_key"),
    ],
)
def test_what_cannot_work_is_refused_at_its_field(owner, kind, values, field):
    assert list(errors(add(owner, kind, values))) == [field]
    assert not Integration.objects.exists()


def test_what_refers_to_the_organization_can_be_written_while_an_integration_is_added(owner):
    with CaptureQueriesContext(connection) as captured:
        add(owner, "webhook", WEBHOOK)
    assert Integration.objects.exists()
    said = " ".join(query["sql"] for query in captured)
    assert said.count("FOR NO KEY UPDATE") == (1 if connection.vendor == "postgresql" else 0)
    assert "FOR UPDATE" not in said


def test_a_name_is_given_once(owner, organization):
    factories.integration(organization, name="Siem")
    assert "already exists" in errors(add(owner, "webhook", WEBHOOK))["name"]
    factories.integration(factories.organization("theirs"), name="archive")
    assert add(owner, "s3", S3).status_code == 302


def test_amazons_own_address_is_filled_in(owner):
    add(owner, "s3", S3)
    made = Integration.objects.get()
    assert made.config["endpoint"] == "https://s3.eu-central-1.amazonaws.com"
    form = owner.get(address("edit", made.pk)).context["form"]
    assert form["endpoint"].value() == ""


def test_an_unknown_kind_is_not_there(owner):
    assert owner.get(address("new", "email")).status_code == 404


def test_a_test_is_sent_and_its_log_shown(owner, webhook, receiver):
    receiver.answer(500, body=b"<b>broken</b>")
    owner.post(address("test", webhook.pk))
    message = OutboxMessage.objects.get()
    assert AccountEvent.objects.filter(kind="integration tested", subject=webhook.name, actor="ann").exists()
    assert "Waiting" in owner.get(address("view", webhook.pk)).content.decode()
    delivery.deliver_due()
    page = owner.get(address("view", webhook.pk)).content.decode()
    assert "Trying again" in page
    assert "500" in page
    detail = owner.get(address("delivery", webhook.pk, message.pk)).content.decode()
    assert "HTTP 500" in detail
    assert "&lt;b&gt;broken" in detail
    assert message.webhook_id in detail
    assert "Failing" in owner.get(address("list")).content.decode()


def test_a_disabled_integration_is_not_tested_and_sends_nothing(owner, organization, webhook, receiver):
    owner.post(address("set-enabled", webhook.pk))
    assert "Enable the integration first" in owner.post(address("test", webhook.pk), follow=True).content.decode()
    outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={})
    assert not OutboxMessage.objects.exists()
    owner.post(address("set-enabled", webhook.pk), {"enabled": "1"})
    assert Integration.objects.get().enabled
    assert set(AccountEvent.objects.values_list("kind", flat=True)) >= {"integration disabled", "integration enabled"}


def test_a_delivery_is_sent_again(owner, organization, webhook, receiver):
    outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={"id": "x"})
    delivery.deliver_due()
    message = OutboxMessage.objects.get()
    answer = owner.post(address("replay", webhook.pk, message.pk), follow=True)
    assert "sent again" in answer.content.decode()
    delivery.deliver_due()
    assert receiver.ids == [message.webhook_id] * 2
    assert DeliveryAttempt.objects.count() == 2


def test_a_new_signing_secret_is_shown_once(owner, webhook):
    before, changed_at = webhook.secrets["signing"], webhook.changed_at
    page = owner.post(address("renew-secret", webhook.pk)).content.decode()
    webhook.refresh_from_db()
    assert webhook.secrets["signing"] in page
    assert webhook.secrets["signing"] != before
    assert (webhook.changed_by, webhook.changed_at > changed_at) == ("ann", True)
    # The page answers a POST to another address, which its links must not lead to.
    assert f'href="{address("view", webhook.pk)}?state=dead"' in page
    assert webhook.secrets["signing"] not in owner.get(address("view", webhook.pk)).content.decode()


def test_an_integration_is_deleted_after_asking(owner, organization, webhook):
    outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={})
    assert "Delete siem?" in owner.get(address("delete", webhook.pk)).content.decode()
    owner.post(address("delete", webhook.pk))
    assert not OutboxMessage.objects.exists()
    assert owner.get(address("view", webhook.pk)).status_code == 404
    assert (
        "siem"
        not in owner.get(address("list"), follow=True)
        .content.decode()
        .split("Add an integration")[0]
        .split("was deleted")[-1]
    )
    assert AccountEvent.objects.filter(kind="integration deleted", subject="siem").exists()


@pytest.mark.parametrize(
    ("name", "values", "status"),
    [("set-enabled", {"enabled": "1"}, 404), ("renew-secret", {}, 404), ("edit", WEBHOOK, 422)],
)
def test_one_that_is_deleted_at_the_same_moment_stays_deleted(owner, webhook, monkeypatch, name, values, status):
    seen = Integration.objects.select_related("organization").get()
    monkeypatch.setattr("policystore.integrations.queries.get_integration", lambda organization, pk: seen)
    actions.delete(integration=webhook, by=SYSTEM)
    assert owner.post(address(name, webhook.pk), values).status_code == status
    left = Integration.objects.get()
    assert (left.enabled, left.config, bytes(left.encrypted_secrets)) == (False, {}, b"")


def test_a_delivery_of_another_integration_is_not_there(owner, organization, webhook):
    other = factories.integration(organization, name="other")
    outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={})
    theirs = other.messages.get()
    assert owner.get(address("delivery", webhook.pk, theirs.pk)).status_code == 404
    assert owner.post(address("replay", webhook.pk, theirs.pk)).status_code == 404


def test_the_log_is_paged_narrowed_and_refreshed_by_itself(owner, organization, webhook, receiver):
    for number in range(60):
        outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={"number": number})
    page = owner.get(address("view", webhook.pk))
    assert len(page.context["page"].rows) == 50
    assert 'hx-trigger="load delay:2s"' in page.content.decode()
    older = owner.get(address("view", webhook.pk) + page.context["next_query"])
    assert len(older.context["page"].rows) == 10
    assert not owner.get(address("view", webhook.pk), {"state": "delivered"}).context["page"].rows
    from_htmx = {"hx-request": "true", "hx-target": "deliveries"}
    fragment = owner.get(address("view", webhook.pk), headers=from_htmx).content.decode()
    assert fragment.strip().startswith('<div id="deliveries"')
    for nonsense in ("x", "9" * 40, "-1"):
        assert owner.get(address("view", webhook.pk), {"before": nonsense, "state": nonsense}).status_code == 200


def test_the_number_of_queries_does_not_grow(owner, organization, webhook, django_assert_max_num_queries):
    for number in range(20):
        outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={"number": number})
    for number in range(5):
        factories.integration(organization, name=f"more {number}")
    with django_assert_max_num_queries(16):
        owner.get(address("view", webhook.pk))
    with django_assert_max_num_queries(16):
        owner.get(address("list"))


def test_every_field_has_a_label():
    for form in (WebhookForm(), SlackForm(), S3Form()):
        assert all(field.label for field in form)
