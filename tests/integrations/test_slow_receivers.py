"""A receiver that is slow or fails delays nobody else."""

import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from policystore.integrations import delivery, event_catalog, outbox, queries
from policystore.integrations.models import OutboxMessage
from tests import factories
from tests.integrations import receivers

pytestmark = pytest.mark.django_db
State = OutboxMessage.State


@pytest.fixture
def receiving(loopback):
    """Starts receivers, and organizations' webhooks that call them."""
    with ExitStack() as stack:

        def start(organization, name):
            receiver = stack.enter_context(receivers.receiver())
            config = {"address": receiver.url, "method": "POST", "raw": False}
            return receiver, factories.integration(organization, name=name, config=config)

        yield start


@pytest.fixture
def deliverer():
    made = delivery.Deliverer()
    yield made
    made.close()


def tell(organization, number=1):
    for _ in range(number):
        outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={"id": "Reverse-Shell"})


def states_of(integration):
    return sorted(integration.messages.values_list("state", flat=True))


def test_a_slow_receiver_holds_up_its_own_messages_only(receiving, deliverer):
    slow_org, quick_org = factories.organization("slow-org"), factories.organization("quick-org")
    slow, slow_webhook = receiving(slow_org, "slow")
    beside, beside_webhook = receiving(slow_org, "beside")
    _, quick_webhook = receiving(quick_org, "quick")
    slow.hold()
    tell(slow_org, 5)
    tell(quick_org, 20)
    began = time.monotonic()
    deliverer.turn()
    assert time.monotonic() - began < delivery.TURN_SECONDS
    assert states_of(quick_webhook) == ["delivered"] * 20
    assert states_of(beside_webhook) == ["delivered"] * 5
    assert states_of(slow_webhook) == ["pending"] * 5
    assert len(slow.calls) == 1, "one call at a time, so that messages stay in order"
    slow.may_answer.set()
    deliverer.turn(patience=5)
    assert states_of(slow_webhook) == ["delivered"] * 5
    assert slow.ids == list(slow_webhook.messages.order_by("pk").values_list("webhook_id", flat=True))
    assert len(beside.calls) == 5


def test_a_turn_does_not_wait_for_a_slow_receiver(receiving, deliverer):
    organization = factories.organization()
    slow, webhook = receiving(organization, "slow")
    slow.hold()
    tell(organization)
    began = time.monotonic()
    assert deliverer.turn() == 0
    assert time.monotonic() - began < 2, "the worker has other things to do"
    slow.may_answer.set()
    assert deliverer.close() == 1
    assert states_of(webhook) == ["delivered"]


def test_many_slow_receivers_of_one_organization_leave_room_for_others(receiving, deliverer):
    greedy, modest = factories.organization("greedy"), factories.organization("modest")
    slow = [receiving(greedy, f"slow{number}")[0] for number in range(queries.MAX_CALLS_PER_ORGANIZATION + 2)]
    for receiver in slow:
        receiver.hold()
    _, webhook = receiving(modest, "siem")
    tell(greedy, 2)
    tell(modest, 3)
    deliverer.turn()
    assert states_of(webhook) == ["delivered"] * 3
    assert sum(len(receiver.calls) for receiver in slow) == queries.MAX_CALLS_PER_ORGANIZATION
    for receiver in slow:
        receiver.may_answer.set()
    deliverer.turn(patience=5)
    assert {state for receiver in slow for state in OutboxMessage.objects.values_list("state", flat=True)} == {
        "delivered"
    }


def test_several_workers_call_a_receiver_once_at_a_time(receiving):
    organization = factories.organization()
    receiving(organization, "siem")
    tell(organization, 3)
    assert outbox.claim() is not None
    assert outbox.claim() is None, "what another worker sends is leased"
    later = timezone.now() + outbox.LEASE + timedelta(seconds=1)
    assert outbox.claim(now=later) is not None


def test_a_failing_receiver_is_paused_and_the_others_go_on(receiving, deliverer):
    organization = factories.organization()
    failing, failing_webhook = receiving(organization, "failing")
    failing.answer(500)
    _, webhook = receiving(organization, "siem")
    tell(organization, 10)
    deliverer.turn()
    assert states_of(webhook) == ["delivered"] * 10
    assert len(failing.calls) == 1
    assert states_of(failing_webhook) == ["pending"] * 10


@pytest.mark.django_db(transaction=True)
def test_the_lag_of_a_receiver_is_visible(client, receiving, deliverer, settings, capsys):
    organization = factories.organization()
    slow, webhook = receiving(organization, "slow")
    slow.hold()
    tell(organization, 2)
    OutboxMessage.objects.update(
        created_at=timezone.now() - timedelta(minutes=25), next_at=timezone.now() - timedelta(minutes=25)
    )
    deliverer.turn()
    [lag] = queries.lags()
    assert (lag.integration, lag.waiting, int(lag.oldest.total_seconds() // 60)) == (webhook, 2, 25)
    assert queries.backlog().overdue < timedelta(minutes=1), "the worker does its part"
    settings.METRICS_TOKEN = "t" * 32
    scraped = client.get("/metrics", headers={"authorization": f"Bearer {settings.METRICS_TOKEN}"}).content.decode()
    assert 'policystore_integration_lag_seconds{integration="slow",organization="octo-org"} 15' in scraped
    ready = client.get("/readyz").json()
    [outbox] = [check for check in ready["checks"] if check["name"] == "outbox"]
    assert (outbox["ok"], outbox["message"]) == (True, "1 receiver is slow or fails: `manage.py doctor` names it.")
    with pytest.raises(SystemExit):
        call_command("doctor")
    report = capsys.readouterr().out
    assert "slow of octo-org (2 messages wait, the oldest for 25 min)" in report
    assert "manage.py doctor" not in report, "doctor does not refer to itself"
    client.force_login(factories.member(organization, role="owner"))
    page = client.get(reverse("integrations:list", args=("octo-org",))).content.decode()
    assert "since" in page
    assert "25 minutes ago" in page.replace("\xa0", " ")
    slow.may_answer.set()
