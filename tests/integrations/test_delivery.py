"""From an event to its delivery: nothing is lost, one id each, however the receiver behaves."""

import json
from datetime import timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import AccountEvent, Actor
from policystore.integrations import actions, delivery, event_catalog, outbox
from policystore.integrations.channels import webhook as channel
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.integrations import receivers

pytestmark = pytest.mark.django_db

State = OutboxMessage.State
ANN = Actor("ann")


def tell(organization, **payload):
    outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload=payload or {"id": "Reverse-Shell"})
    return OutboxMessage.objects.order_by("-pk")[0]


def now_due():
    """Time passes until everything is due."""
    OutboxMessage.objects.filter(state=State.PENDING).update(next_at=timezone.now() - timedelta(seconds=1))
    Integration.objects.update(paused_until=None)


def wait_of(message):
    message.refresh_from_db()
    return (message.next_at - timezone.now()).total_seconds()


def test_an_event_is_delivered_signed_and_in_its_envelope(organization, webhook, receiver):
    message = tell(organization, id="Reverse-Shell", is_lockdown=True)
    assert delivery.deliver_due() == 1
    [call] = receiver.calls
    told = call.verified(webhook.secrets["signing"])
    assert told["data"] == {"id": "Reverse-Shell", "is_lockdown": True}
    assert (told["type"], told["organization"], told["id"]) == ("detection", "octo-org", message.webhook_id)
    assert call.headers["webhook-id"] == message.webhook_id
    message.refresh_from_db()
    assert (message.state, message.attempt_count) == (State.DELIVERED, 1)
    attempt = DeliveryAttempt.objects.get()
    assert (attempt.status, attempt.response, attempt.succeeded, attempt.number) == (200, "ok", True, 1)
    assert delivery.deliver_due() == 0


def test_raw_bodies_methods_and_headers_are_as_chosen(organization, receiver):
    secrets = {"signing": actions.new_signing_secret(), "headers": {"Authorization": "Bearer x", "X-A": "b"}}
    config = {"address": receiver.url, "method": "PUT", "raw": True}
    factories.integration(organization, config=config, secrets=secrets)
    tell(organization, id="x")
    delivery.deliver_due()
    [call] = receiver.calls
    assert (call.method, call.verified(secrets["signing"])) == ("PUT", {"id": "x"})
    assert (call.headers["authorization"], call.headers["x-a"]) == ("Bearer x", "b")


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b'{"Authorization": "Bearer s3cr3t-token-of-ours"}'),
        (401, {}, b"s3cr3t-token-of-ours is no token"),
        (500, {}, b"x" * 980 + b" s3cr3t-token-of-ours"),
        lambda handler: handler.wfile.write(b"Bearer s3cr3t-token-of-ours?\r\n\r\n"),
    ],
    ids=["header", "token", "cut", "status line"],
)
def test_a_secret_that_a_receiver_repeats_is_not_in_the_log(organization, receiver, answer):
    secrets = {
        "signing": actions.new_signing_secret(),
        "headers": {"Authorization": "Bearer s3cr3t-token-of-ours", "X-A": "b"},
    }
    config = {"address": receiver.url, "method": "POST", "raw": True}
    factories.integration(organization, config=config, secrets=secrets)
    receiver.answers[:] = [answer]
    tell(organization)
    delivery.deliver_due()
    attempt = DeliveryAttempt.objects.get()
    assert "s3cr3t" not in attempt.response + attempt.error
    assert "[hidden]" in attempt.response + attempt.error


def test_a_changed_body_or_another_secret_does_not_verify(organization, webhook, receiver):
    tell(organization)
    delivery.deliver_due()
    [call] = receiver.calls
    with pytest.raises(Exception, match="No matching signature"):
        call.verified(actions.new_signing_secret())
    call.body += b" "
    with pytest.raises(Exception, match="No matching signature"):
        call.verified(webhook.secrets["signing"])


def test_a_replaced_secret_signs_for_another_day(organization, webhook, receiver):
    before = webhook.secrets["signing"]
    fresh = actions.renew_signing_secret(integration=webhook, by=ANN)
    tell(organization)
    delivery.deliver_due()
    assert receiver.calls[0].verified(before) == receiver.calls[0].verified(fresh)
    held = Integration.objects.get().secrets
    held["previous_until"] = (timezone.now() - timedelta(seconds=1)).isoformat()
    Integration.objects.update(encrypted_secrets=actions._hidden(held))
    tell(organization)
    delivery.deliver_due()
    receiver.calls[1].verified(fresh)
    with pytest.raises(Exception, match="No matching signature"):
        receiver.calls[1].verified(before)


def test_only_those_who_want_an_event_are_told(organization, webhook, receiver):
    theirs = factories.integration(factories.organization("theirs"))
    factories.integration(organization, name="off", chosen=[event_catalog.LOCKDOWN])
    disabled = factories.integration(organization, name="disabled")
    actions.set_enabled(integration=disabled, enabled=False, by=ANN)
    assert outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={}) == 1
    assert not theirs.messages.exists()
    assert OutboxMessage.objects.get().integration == webhook


def test_an_unknown_kind_of_event_is_refused(organization):
    with pytest.raises(ValueError, match="not a known event"):
        outbox.emit(organization=organization, kind="weather", payload={})


def test_an_event_that_is_rolled_back_is_not_told(organization, webhook):
    with transaction.atomic():
        tell(organization)
        transaction.set_rollback(True)
    assert not OutboxMessage.objects.exists()


def test_nobody_to_tell_costs_one_query(organization, django_assert_num_queries):
    with django_assert_num_queries(1):
        outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={})


def test_many_events_ask_once_whom_to_tell(
    organization, webhook, django_assert_num_queries, django_assert_max_num_queries
):
    events = [outbox.Event(event_catalog.DETECTION, {"number": number}) for number in range(100)]
    # SQLite takes a few dozen rows a statement.
    with django_assert_max_num_queries(4):
        assert outbox.emit_all(organization=organization, events=events) == 100
    with django_assert_num_queries(0):
        assert outbox.emit_all(organization=organization, events=[]) == 0


def test_each_change_of_a_policy_is_told(organization, webhook, receiver):
    policy = factories.policy(organization, name="ci")
    scope = Scope.for_repository("octo-org", "api")
    attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=ANN)
    policies.UpdatePolicy(
        policy=policy, name="ci", description="d", text="egress-policy: audit\n", expected_version=1
    ).apply(by=ANN)
    attachments.ModifyAttachments(policy=policy, remove=[scope]).apply(by=ANN)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    delivery.deliver_due()
    told = [json.loads(call.body) for call in receiver.calls]
    assert [one["type"] for one in told] == [
        "policy.created", "policy.attached", "policy.updated", "policy.detached", "policy.deleted",
    ]  # fmt: skip
    assert {one["data"]["policy"] for one in told} == {"ci"}
    assert told[1]["data"]["scopes_added"] == ["repository:octo-org/api"]
    assert told[2]["data"] | {"at": "", "history_event_id": 0} == {
        "policy": "ci",
        "policy_id": policy.pk,
        "version": 2,
        "egress_policy": "audit",
        "actor": "ann",
        "actor_kind": "user",
        "at": "",
        "history_event_id": 0,
        "reason": "",
        "name_before": "",
        "description": "d",
        "text": "egress-policy: audit\n",
    }


@pytest.mark.parametrize("status", [301, 400, 404, 408, 429, 500, 503])
def test_a_failure_is_tried_again_later_under_the_same_id(organization, webhook, receiver, status):
    receiver.answer(status, body=b"not now \x00")
    message = tell(organization)
    assert delivery.deliver_due() == 1
    assert 7 < wait_of(message) < 13
    assert delivery.deliver_due() == 0
    now_due()
    delivery.deliver_due()
    assert 23 < wait_of(message) < 37
    receiver.answer(204)
    now_due()
    delivery.deliver_due()
    message.refresh_from_db()
    assert (message.state, message.attempt_count) == (State.DELIVERED, 3)
    assert receiver.ids == [message.webhook_id] * 3
    assert [attempt.status for attempt in message.attempts.all()] == [204, status, status]
    assert message.attempts.all()[1].response == "not now \ufffd"
    assert Integration.objects.get().failures == 0


def test_nobody_there_is_a_failure_that_its_log_explains(organization, webhook, settings):
    settings.OUTBOX_ALLOWED_NETWORKS = []
    Integration.objects.update(config={"address": "https://127.0.0.1:9/", "method": "POST", "raw": False})
    message = tell(organization)
    delivery.deliver_due()
    assert "not public" in message.attempts.get().error
    assert message.attempts.get().status is None
    assert 7 < wait_of(message) < 13


def test_retry_after_is_honoured_in_seconds_and_as_a_date(organization, webhook, receiver):
    receiver.answer(429, {"Retry-After": "3600"})
    message = tell(organization)
    delivery.deliver_due()
    assert 3590 < wait_of(message) <= 3600
    receiver.answer(503, {"Retry-After": format_datetime(timezone.now() + timedelta(hours=2))})
    now_due()
    delivery.deliver_due()
    assert 7190 < wait_of(message) <= 7200
    for nonsense in ("soon", "-5", "", "Mon, 99 Foo", "9" * 40):
        assert outbox.asked_delay(nonsense, now=timezone.now()) in (timedelta(0), outbox.KEEP_TRYING)


def test_a_receiver_that_is_down_waits_as_a_whole_and_costs_others_no_time(organization, webhook, receiver):
    with receivers.receiver() as broken:
        broken.answer(500)
        config = {"address": broken.url, "method": "POST", "raw": False}
        factories.integration(organization, name="broken", config=config)
        for _ in range(5):
            tell(organization)
        assert delivery.deliver_due() == 6
        assert (len(broken.calls), len(receiver.calls)) == (1, 5)
        broken.answer(200)
        now_due()
        delivery.deliver_due()
        assert len(broken.calls) == 6
    assert not OutboxMessage.objects.exclude(state=State.DELIVERED).exists()


def test_one_refused_message_holds_no_other_up(organization, webhook, receiver):
    receiver.answers[:] = [(400, {}, b""), (200, {}, b"")]
    for _ in range(3):
        tell(organization)
    assert delivery.deliver_due() == 3
    assert OutboxMessage.objects.filter(state=State.DELIVERED).count() == 2


def test_gone_gives_the_message_up_and_switches_the_integration_off(organization, webhook, receiver):
    receiver.answer(410)
    first, second = tell(organization), tell(organization)
    assert delivery.deliver_due() == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == (State.DEAD, State.PENDING)
    webhook.refresh_from_db()
    assert not webhook.enabled
    assert "gone for good" in webhook.disabled_because
    assert AccountEvent.objects.filter(kind="integration disabled", subject="siem").exists()
    receiver.answer(200)
    actions.set_enabled(integration=webhook, enabled=True, by=ANN)
    assert delivery.deliver_due() == 1
    assert receiver.ids[-1] == second.webhook_id


def test_it_tries_for_three_days_with_growing_pauses_then_gives_up(organization, webhook, receiver, monkeypatch):
    receiver.answer(500)
    message = tell(organization)
    began, times = message.created_at, []
    clock = {"now": began}
    monkeypatch.setattr(timezone, "now", lambda: clock["now"])
    while True:
        assert delivery.deliver_due() == 1
        times.append(clock["now"])
        message.refresh_from_db()
        if message.state != State.PENDING:
            break
        clock["now"] = message.next_at
    assert message.state == State.DEAD
    assert times[-1] == message.expires_at == began + timedelta(days=3)
    assert 12 <= len(times) <= 24
    pauses = [after - before for before, after in pairwise(times)][:6]
    assert pauses == sorted(pauses)
    assert set(receiver.ids) == {message.webhook_id}
    assert message.attempts.count() == len(times)


def test_what_waited_behind_a_dead_receiver_for_three_days_is_given_up(organization, webhook, receiver):
    receiver.answer(500)
    for _ in range(3):
        tell(organization)
    delivery.deliver_due()
    OutboxMessage.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    now_due()
    delivery.deliver_due()
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {State.DEAD}
    assert len(receiver.calls) == 2


def test_what_waited_for_a_worker_for_longer_is_sent_all_the_same(organization, webhook, receiver):
    tell(organization)
    OutboxMessage.objects.update(expires_at=timezone.now() - timedelta(days=1))
    delivery.deliver_due()
    assert OutboxMessage.objects.get().state == State.DELIVERED


def test_a_replay_has_the_same_id_and_starts_again(organization, webhook, receiver):
    message = tell(organization)
    delivery.deliver_due()
    outbox.replay(message=message, by=ANN)
    delivery.deliver_due()
    assert receiver.ids == [message.webhook_id] * 2
    message.refresh_from_db()
    assert (message.state, message.attempt_count) == (State.DELIVERED, 2)
    assert AccountEvent.objects.filter(kind="delivery replayed").exists()


def test_secrets_that_cannot_be_read_any_more_are_said_in_the_log(organization, webhook, settings):
    settings.ENCRYPTION_KEYS = ["another"]
    message = tell(organization)
    delivery.deliver_due()
    assert "cannot be read" in message.attempts.get().error


def test_a_mistake_of_the_stores_own_keeps_the_message(organization, webhook, monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("oops")

    monkeypatch.setattr(channel.http_client, "send", fails)
    message = tell(organization)
    delivery.deliver_due()
    assert "the store itself" in message.attempts.get().error.lower()
    message.refresh_from_db()
    assert message.state == State.PENDING
    assert "oops" in caplog.text


def test_a_claim_is_nobody_elses_until_its_lease_is_over(organization, webhook):
    message = tell(organization)
    claimed = outbox.claim()
    assert claimed.messages == [message]
    assert outbox.claim() is None
    later = timezone.now() + outbox.LEASE + timedelta(seconds=1)
    again = outbox.claim(now=later)
    assert again.messages == [message]
    assert again.lease != claimed.lease


def test_who_lost_the_lease_changes_nothing(organization, webhook):
    message = tell(organization)
    slow = outbox.claim()
    quick = outbox.claim(now=timezone.now() + outbox.LEASE + timedelta(seconds=1))
    done = {"started_at": timezone.now(), "duration": timedelta(seconds=1)}
    outbox.finish(claimed=quick, outcome=delivery.Outcome(delivery.Result.DELIVERED, 200), **done)
    outbox.finish(claimed=slow, outcome=delivery.Outcome(delivery.Result.FAILED, 500), **done)
    message.refresh_from_db()
    assert (message.state, message.attempt_count) == (State.DELIVERED, 1)


def test_an_integration_deleted_while_it_is_sent_to_harms_nothing(organization, webhook):
    tell(organization)
    claimed = outbox.claim()
    actions.delete(integration=webhook, by=ANN)
    outcome = delivery.Outcome(delivery.Result.DELIVERED, 200)
    outbox.finish(claimed=claimed, outcome=outcome, started_at=timezone.now(), duration=timedelta(0))
    assert not DeliveryAttempt.objects.exists()
    assert delivery.deliver_due() == 0
    webhook.refresh_from_db()
    assert (bytes(webhook.encrypted_secrets), webhook.config) == (b"", {})


def test_old_deliveries_and_deleted_integrations_are_forgotten(organization, webhook, receiver):
    tell(organization)
    delivery.deliver_due()
    waiting = tell(organization)
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(days=31))
    assert outbox.prune(days=30) is False
    assert OutboxMessage.objects.get() == waiting
    actions.delete(integration=webhook, by=ANN)
    outbox.prune(days=30)
    assert Integration.objects.count() == 1
    Integration.objects.update(deleted_at=timezone.now() - timedelta(days=2))
    outbox.prune(days=30)
    assert not Integration.objects.exists()
