"""A store that serves https, for whatever runs against it."""

import shutil

import pytest

from tests.end_to_end.store_for_clients import AUDIT, BLOCK, GitHub, StoreForClients


@pytest.fixture(scope="session")
def github():
    playing = GitHub()
    yield playing
    playing.close()


@pytest.fixture(scope="session")
def store(tmp_path_factory, github):
    assert shutil.which("node"), "Node.js is missing; install Debian's nodejs"
    running = StoreForClients(tmp_path_factory.mktemp("store"), github)
    running.attach("blocking", BLOCK, "repository:octo-org/blocked")
    running.attach("auditing", AUDIT, "repository:octo-org/audited")
    running.attach("for-ci", AUDIT, "workflow:octo-org/blocked/ci audit.yml")
    running.attach("on-cluster", BLOCK, "cluster:octo-org/prod-k8s")
    yield running
    running.close()
