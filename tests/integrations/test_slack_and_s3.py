"""Slack against a server that answers as Slack does, S3 against one that takes objects."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from policystore.integrations import delivery, event_catalog, outbox
from policystore.integrations.channels import s3
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from tests import factories

pytestmark = pytest.mark.django_db

State = OutboxMessage.State


def tell(organization, **payload):
    outbox.emit(organization=organization, kind=event_catalog.BLOCKED_CALL, payload=payload or {"host": "evil.example"})
    return OutboxMessage.objects.order_by("-pk")[0]


def state_of(message):
    message.refresh_from_db()
    return message.state


def due():
    OutboxMessage.objects.filter(state=State.PENDING).update(next_at=timezone.now())
    Integration.objects.update(paused_until=None)


@pytest.fixture
def incoming(organization, receiver):
    return factories.integration(organization, "slack", config={"channel": ""}, secrets={"webhook_url": receiver.url})


@pytest.fixture
def bot(organization, receiver, settings):
    settings.SLACK_API_URL = receiver.url
    receiver.answer(200, body=b'{"ok": true}')
    return factories.integration(organization, "slack", config={"channel": "#sec"}, secrets={"bot_token": "xoxb-1"})


def test_an_incoming_webhook_gets_a_sentence_and_links(organization, incoming, receiver):
    message = tell(organization, endpoint="evil.example:443", process="git", repo="app", policy_name="ci")
    delivery.deliver_due()
    assert state_of(message) == State.DELIVERED
    sent = json.loads(receiver.calls[0].body)
    assert sent["text"] == "*Blocked a call* from `git` to `evil.example:443` in `octo-org/app`, by policy `ci`."
    assert sent["unfurl_links"] is False


def test_a_bot_writes_with_its_token_into_its_channel(organization, bot, receiver):
    message = tell(organization)
    delivery.deliver_due()
    assert state_of(message) == State.DELIVERED
    [call] = receiver.calls
    assert call.path == "/store/chat.postMessage"
    assert call.headers["authorization"] == "Bearer xoxb-1"
    assert json.loads(call.body)["channel"] == "#sec"


@pytest.mark.parametrize(
    ("answer", "state", "enabled"),
    [
        ('{"ok": false, "error": "channel_not_found"}', State.PENDING, True),
        ('{"ok": false, "error": "ratelimited"}', State.PENDING, True),
        ('{"ok": false, "error": "no\\u0000text \\ud800"}', State.PENDING, True),
        ('{"ok": false, "error": "token_revoked"}', State.DEAD, False),
        ("<html>", State.PENDING, True),
        ("[]", State.PENDING, True),
        ('"ok"', State.PENDING, True),
    ],
)
def test_a_bots_answer_counts_by_its_body(organization, bot, receiver, answer, state, enabled):
    receiver.answer(200, body=answer.encode())
    message = tell(organization)
    delivery.deliver_due()
    assert state_of(message) == state
    bot.refresh_from_db()
    assert bot.enabled is enabled
    assert message.attempts.get().error


def test_slack_that_asks_to_wait_is_given_time(organization, bot, receiver):
    receiver.answer(429, {"Retry-After": "120"})
    message = tell(organization)
    delivery.deliver_due()
    assert state_of(message) == State.PENDING
    assert message.next_at - timezone.now() > timedelta(seconds=110)


@pytest.fixture
def bucket(organization, receiver):
    config = {
        "bucket": "audit-log",
        "region": "eu-central-1",
        "endpoint": f"http://127.0.0.1:{receiver.port}",
        "key_prefix": "policy-store/octo",
    }
    secrets = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "s3cr3t"}
    receiver.answer(200, {"ETag": '"x"'})
    return factories.integration(organization, "s3", name="archive", config=config, secrets=secrets)


def lines_of(call):
    return [json.loads(line) for line in call.body.decode().splitlines()]


def test_a_batch_is_one_object_of_json_lines_below_its_date(organization, bucket, receiver):
    told = [tell(organization, number=number, text="a\nb") for number in range(5)]
    assert delivery.deliver_due() == 0, "what goes to S3 waits a little for others"
    due()
    assert delivery.deliver_due() == 1
    [call] = receiver.calls
    assert call.method == "PUT"
    today = timezone.now().strftime("%Y/%m/%d")
    assert call.path.startswith(f"/audit-log/policy-store/octo/{today}/")
    assert call.path.endswith(".jsonl")
    assert [line["id"] for line in lines_of(call)] == [message.webhook_id for message in told]
    assert [line["data"]["number"] for line in lines_of(call)] == list(range(5))
    assert call.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    assert call.headers["content-type"] == "application/x-ndjson"
    assert "s3cr3t" not in str(call)
    assert {state_of(message) for message in told} == {State.DELIVERED}


def test_a_batch_that_failed_is_the_same_object_the_next_time(organization, bucket, receiver):
    receiver.answer(503, body=b"<Error><Code>SlowDown</Code></Error>")
    first = [tell(organization), tell(organization)]
    due()
    assert delivery.deliver_due() == 1
    assert "SlowDown" in first[0].attempts.get().response
    tell(organization)
    receiver.answer(200)
    due()
    assert delivery.deliver_due() == 2
    failed, again, other = receiver.calls
    assert (failed.path, failed.body) == (again.path, again.body)
    assert other.path != again.path
    assert not OutboxMessage.objects.exclude(state=State.DELIVERED).exists()


@pytest.mark.parametrize("status", [301, 307, 400, 403, 404, 410, 500])
def test_whatever_a_bucket_answers_nothing_is_dropped(organization, bucket, receiver, status):
    receiver.answer(status, {"Location": "http://127.0.0.1:1/", "x-amz-bucket-region": "eu-west-1"}, b"<Error/>")
    message = tell(organization)
    due()
    assert delivery.deliver_due() == 1
    assert len(receiver.calls) == 1
    assert state_of(message) == State.PENDING
    assert message.attempts.get().status == status


@pytest.mark.parametrize(
    ("status", "body"), [(301, b""), (307, b"{}"), (206, b"<a><a>"), (200, b"\xff\xfe<")], ids=[301, 307, 206, 200]
)
def test_an_answer_that_boto3_cannot_read_counts_by_its_status(organization, bucket, receiver, status, body):
    # In another region S3 redirects, and does not always say which.
    receiver.answer(status, body=body)
    message = tell(organization)
    due()
    delivery.deliver_due()
    attempt = DeliveryAttempt.objects.get()
    assert attempt.status == status
    assert "store itself" not in attempt.error
    assert state_of(message) == (State.DELIVERED if status < 300 else State.PENDING)


def test_a_bucket_on_a_closed_network_is_not_written_to(organization, bucket, receiver, settings):
    settings.OUTBOX_ALLOWED_NETWORKS = []
    message = tell(organization)
    due()
    delivery.deliver_due()
    assert "OUTBOX_ALLOWED_NETWORKS" in message.attempts.get().error
    assert receiver.calls == []


def test_one_message_of_a_batch_can_be_replayed_by_itself(organization, bucket, receiver):
    told = [tell(organization), tell(organization)]
    due()
    delivery.deliver_due()
    outbox.replay(message=told[1], by=factories.SYSTEM)
    delivery.deliver_due()
    assert [line["id"] for line in lines_of(receiver.calls[1])] == [told[1].webhook_id]


def test_a_batch_is_bounded(organization, bucket, receiver, monkeypatch):
    monkeypatch.setattr("policystore.integrations.outbox.BATCH_CHARACTERS", 50)
    for number in range(4):
        tell(organization, number=number, text="0123456789")
    due()
    assert delivery.deliver_due(seconds=60) == 4
    assert sum(len(lines_of(call)) for call in receiver.calls) == 4


def test_names_of_objects():
    assert s3.key_of("", "20260131T120000Z-ab") == "2026/01/31/20260131T120000Z-ab.jsonl"
    assert s3.key_of("/a/b/", "20260131T120000Z-ab") == "a/b/2026/01/31/20260131T120000Z-ab.jsonl"
