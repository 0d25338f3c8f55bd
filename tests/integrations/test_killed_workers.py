"""Workers that are killed, and workers side by side: real processes on the test's database."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from policystore.accounts.models import SYSTEM
from policystore.integrations import actions, delivery, event_catalog, outbox
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from tests.operations.running import ROOT, WAIT_SECONDS

pytestmark = pytest.mark.django_db(transaction=True)

State = OutboxMessage.State


class Killed(BaseException):
    """Ends a delivery where it stands, as kill -9 would."""


def tell(organization, times=1):
    for number in range(times):
        outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={"number": number})


def leases_end():
    OutboxMessage.objects.filter(state=State.PENDING).update(next_at=timezone.now() - timedelta(seconds=1))


def database_address():
    """DATABASE_URL of the database that this test uses."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


def worker_environment():
    """For a process that delivers this test's messages to this machine."""
    return {
        **os.environ,
        "DATABASE_URL": database_address(),
        "OUTBOX_ALLOWED_NETWORKS": "127.0.0.0/8",
        "SECRET_KEY": settings.SECRET_KEY,
    }


@contextmanager
def worker(*arguments):
    """A process that delivers, killed at the end if it is still there."""
    command = [sys.executable, str(ROOT / "manage.py"), "deliver", *arguments]
    process = subprocess.Popen(command, env=worker_environment(), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_worker_killed_while_it_sends_loses_nothing_and_repeats_one(organization, webhook, receiver):
    tell(organization, 3)
    receiver.hold()
    with worker() as process:
        assert receiver.came.wait(WAIT_SECONDS)
        process.send_signal(signal.SIGKILL)
    receiver.may_answer.set()
    assert DeliveryAttempt.objects.count() == 0
    leases_end()
    with worker() as process:
        assert process.wait(WAIT_SECONDS) == 0
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {State.DELIVERED}
    ids = list(OutboxMessage.objects.order_by("pk").values_list("webhook_id", flat=True))
    assert sorted(receiver.ids) == sorted([ids[0], *ids])
    for call in receiver.calls:
        call.verified(webhook.secrets["signing"])


def test_workers_killed_at_random_moments_lose_nothing_and_repeat_one_each(organization, webhook, receiver):
    tell(organization, 60)
    killed = 0
    for pause in (0.0, 0.007):
        receiver.came.clear()
        with worker() as process:
            assert receiver.came.wait(WAIT_SECONDS)
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        leases_end()
    delivery.deliver_due(seconds=WAIT_SECONDS)
    told = set(OutboxMessage.objects.values_list("webhook_id", flat=True))
    assert set(receiver.ids) == told
    assert len(receiver.ids) <= 60 + killed
    assert not OutboxMessage.objects.exclude(state=State.DELIVERED).exists()


@pytest.mark.parametrize("step", ["before the claim", "before sending", "after sending", "in the last transaction"])
def test_a_kill_at_each_step_loses_nothing(organization, webhook, receiver, monkeypatch, step):
    def killed(*_, **__):
        raise Killed

    tell(organization, 2)
    first = OutboxMessage.objects.order_by("pk")[0]
    places = {
        "before the claim": (outbox, "claim"),
        "before sending": (delivery, "_send"),
        "after sending": (outbox, "finish"),
        "in the last transaction": (outbox, "_FINISHES"),
    }
    with monkeypatch.context() as patch:
        module, name = places[step]
        patch.setattr(module, name, killed if name != "_FINISHES" else dict.fromkeys(outbox._FINISHES, killed))
        with pytest.raises(Killed):
            delivery.deliver_due()
    assert OutboxMessage.objects.filter(state=State.PENDING).count() == 2
    assert not DeliveryAttempt.objects.exists()
    leases_end()
    delivery.deliver_due()
    assert not OutboxMessage.objects.exclude(state=State.DELIVERED).exists()
    assert receiver.ids.count(first.webhook_id) == (2 if "after" in step or "last" in step else 1)
    assert len(set(receiver.ids)) == 2


def test_an_integration_can_be_deleted_while_its_delivery_is_recorded(organization, webhook):
    Integration.objects.update(failures=1)
    tell(organization)
    claimed, errors = outbox.claim(), []

    def finish():
        try:
            outcome = delivery.Outcome(delivery.Result.DELIVERED, 200)
            now = timezone.now()
            outbox.finish(claimed=claimed, outcome=outcome, started_at=now, duration=timedelta(0))
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=finish)
    with transaction.atomic():
        Integration.objects.filter(pk=webhook.pk).update(enabled=False)
        thread.start()
        time.sleep(0.5)
        actions.delete(integration=webhook, by=SYSTEM)
    thread.join(timeout=60)
    assert errors == []
    assert not OutboxMessage.objects.exists()


def test_workers_side_by_side_send_each_message_once(organization, webhook, receiver):
    tell(organization, 40)
    problems = []

    def work():
        try:
            while OutboxMessage.objects.filter(state=State.PENDING).exists():
                delivery.deliver_due()
        except Exception as problem:
            problems.append(problem)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert len(receiver.ids) == len(set(receiver.ids)) == 40
    assert not OutboxMessage.objects.exclude(state=State.DELIVERED).exists()
    assert DeliveryAttempt.objects.count() == 40
