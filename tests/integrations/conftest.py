"""Receivers on loopback, which an operator would have to allow."""

from ipaddress import ip_network

import pytest

from tests import factories
from tests.integrations import receivers


@pytest.fixture
def loopback(settings):
    """Lets the store send to this machine."""
    settings.OUTBOX_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


@pytest.fixture
def receiver(loopback):
    """A receiver that answers 200."""
    with receivers.receiver() as running:
        yield running


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def webhook(organization, receiver):
    """An integration that calls the receiver with every event."""
    return factories.integration(organization, config={"address": receiver.url, "method": "POST", "raw": False})
