"""Whatever happens to workers and receivers, each message arrives, under one id, with a good signature."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from functools import partial
from random import Random

import pytest
from django.db import connection

from policystore.integrations import delivery, event_catalog, http_client, outbox
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from tests import factories
from tests.both_databases import CHOSEN
from tests.faults.clients import together
from tests.faults.killed_at import FINISHED, SENT, STEPS
from tests.integrations import receivers
from tests.integrations.conftest import loopback, organization, receiver, webhook
from tests.integrations.test_killed_workers import leases_end, worker_environment
from tests.operations.running import ROOT, WAIT_SECONDS

__all__ = ["loopback", "organization", "receiver", "webhook"]

pytestmark = pytest.mark.django_db(transaction=True)

State = OutboxMessage.State
# The steps of the short form: before anything is sent, at either end of what is sent twice, and after it.
SHORT = (1, SENT, FINISHED - 2, FINISHED)


def happen(organization, numbers):
    for number in numbers:
        outbox.emit(organization=organization, kind=event_catalog.DETECTION, payload={"number": number})


def due_again():
    """What was claimed is due, and no receiver is waited for."""
    leases_end()
    Integration.objects.update(paused_until=None)


def ids_of(calls, secret):
    """The id under which each message was sent, once all signatures were found good; how often each was."""
    ids, times = {}, Counter()
    for call in calls:
        number = call.verified(secret)["data"]["number"]
        times[number] += 1
        assert ids.setdefault(number, call.headers["webhook-id"]) == call.headers["webhook-id"]
    return ids, times


def killed(step, times):
    """How a process that is killed at this step ended."""
    command = [sys.executable, "-m", "tests.faults.killed_at", str(step), str(times)]
    return subprocess.run(command, env=worker_environment(), cwd=ROOT, timeout=WAIT_SECONDS, check=False).returncode


def test_workers_killed_at_each_step_lose_nothing(organization, webhook, receiver, full, tell):
    kills, random = 100 if full else len(SHORT), Random(5)
    messages, repeats, steps = 3 * kills, 0, Counter()
    happen(organization, range(messages))
    for turn in range(kills):
        step = turn % len(STEPS) if full else SHORT[turn]
        assert killed(step, random.randint(1, 2)) == -signal.SIGKILL
        repeats += SENT <= step < FINISHED
        steps[step] += 1
        due_again()
        ids_of(receiver.calls, webhook.secrets["signing"])
    delivery.deliver_due(seconds=WAIT_SECONDS)
    told = dict(OutboxMessage.objects.values_list("webhook_id", "state"))
    ids, times = ids_of(receiver.calls, webhook.secrets["signing"])
    lost = messages - len(ids)
    tell(
        f"delivery on {os.environ[CHOSEN]}: {kills} kills at {len(steps)} steps, {messages} messages, {lost} lost, "
        f"{times.total() - messages} sent again under the same id, {times.total()} signatures verified"
    )
    assert lost == 0
    assert set(ids.values()) == set(told)
    assert set(told.values()) == {State.DELIVERED}
    assert times.total() == messages + repeats


def hang(handler):
    """Say nothing for longer than a sender waits."""
    handler.server.receiver.recovered.wait(60)


def drip(handler):
    """Say a header that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not handler.server.receiver.recovered.wait(0.1):
        handler.wfile.write(b"a")


def cut(handler):
    """Go away in the middle of the headers."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")
    handler.connection.close()


def no_http(handler):
    handler.wfile.write(b"220 mail.example.com ESMTP\r\n")


FAULTS = {
    "down": None,
    "answering 500": (500, {}, b"oops"),
    "asking for patience": (503, {"Retry-After": "86400"}, b""),
    "hanging": hang,
    "dripping": drip,
    "cutting": cut,
    "no HTTP": no_http,
    "redirecting": (307, {}, b""),
}


def deliver_side_by_side(count, seconds):
    """Several workers, so that one receiver's time is not everybody's."""

    def work(_):
        try:
            return delivery.deliver_due(seconds=seconds)
        finally:
            connection.close()

    together(count, work)


@pytest.fixture
def failing(organization, loopback):
    """Receivers that each fail in their own way, by the name of their integration; and one that nobody may call."""
    with ExitStack() as stack:
        elsewhere = stack.enter_context(receivers.receiver())
        running = {name: stack.enter_context(receivers.receiver(down=name == "down")) for name in FAULTS}
        for name, told in running.items():
            factories.integration(organization, name=name, config={"address": told.url, "method": "POST", "raw": False})
            told.answers[:] = [FAULTS[name]]
        running["redirecting"].answer(307, {"Location": elsewhere.url})
        yield running, elsewhere


def test_whatever_receivers_do_nothing_is_lost(organization, failing, monkeypatch, full, tell):
    rounds, (running, elsewhere) = 10 if full else 2, failing
    if not full:
        monkeypatch.setattr(http_client, "send", partial(http_client.send, seconds=1.5))
    happen(organization, range(2))
    for _ in range(rounds):
        deliver_side_by_side(4, seconds=1.0)
        assert set(OutboxMessage.objects.values_list("state", flat=True)) == {State.PENDING}
        tried = Counter(DeliveryAttempt.objects.values_list("message__integration__name", flat=True))
        assert set(tried) == set(FAULTS)
        due_again()
    assert not DeliveryAttempt.objects.filter(succeeded=True).exists()
    for told in running.values():
        told.recover()
    delivery.deliver_due(seconds=WAIT_SECONDS)
    verified = 0
    for integration in Integration.objects.all():
        ids, times = ids_of(running[integration.name].calls, integration.secrets["signing"])
        assert set(ids) == {0, 1}, integration.name
        verified += times.total()
    tell(
        f"receivers on {os.environ[CHOSEN]}: {len(FAULTS)} kinds of fault, {DeliveryAttempt.objects.count()} attempts, "
        f"{OutboxMessage.objects.exclude(state=State.DELIVERED).count()} of {OutboxMessage.objects.count()} messages "
        f"lost, one id each, {verified} signatures verified, {len(elsewhere.calls)} redirects followed"
    )
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {State.DELIVERED}
    assert elsewhere.calls == []
