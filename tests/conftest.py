"""What all tests share: a run on each database, a SQLite file as in use, and no way out to the network."""

from __future__ import annotations

import ipaddress
import os
import socket
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.test import Client
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from whitenoise.middleware import WhiteNoiseMiddleware

from policystore.runners import oidc, rate_limit
from policystore.runners.fetch import handler, recorder
from tests.both_databases import (
    CHOSEN,
    pytest_addoption,
    pytest_cmdline_main,
    pytest_collection_modifyitems,
    pytest_report_header,
)
from tests.figures import full, pytest_configure, pytest_terminal_summary, tell
from tests.github_tokens import Issuer
from tests.html import layout_removed
from tests.operations import production as in_production

__all__ = [
    "full",
    "pytest_addoption",
    "pytest_cmdline_main",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_report_header",
    "pytest_terminal_summary",
    "tell",
]

# How long an example takes says something about the machine, not about the code.
hypothesis_settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any machine")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix, tmp_path_factory):
    """SQLite runs on a file: a database in memory knows neither the journal nor the locks that the store relies on."""
    database = settings.DATABASES["default"]
    assert os.environ[CHOSEN] in database["ENGINE"], "the suite is on another database than its heading says"
    if "sqlite" in database["ENGINE"]:
        database["TEST"]["NAME"] = tmp_path_factory.mktemp("database") / "test.sqlite3"


@pytest.fixture(scope="session", autouse=True)
def _static_files_are_found_once():
    """Each test client loads the middleware anew, and would go through all static files again for it: 50 ms a client,
    which was a quarter of the time of all tests."""
    walk, found = WhiteNoiseMiddleware.add_files_from_finders, {}

    def walk_once(self):
        if not found:
            walk(self)
            found.update(self.files)
        self.files.update(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", walk_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _pages_without_layout():
    """Test clients return pages without the whitespace of a template's layout: reformatting breaks no test.

    `size` is how many bytes a browser gets.
    """
    request = Client.request

    def without_layout(self, **environment):
        response = request(self, **environment)
        if not response.streaming and response.headers.get("Content-Type", "").startswith("text/html"):
            response.size = len(response.content)
            response.content = layout_removed(response.content.decode())
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "request", without_layout)
        yield


@pytest.fixture(scope="session")
def production():
    """A database as in production: `settings` of the store on it, and the `keys` of its one organization."""
    with in_production.database() as settings:
        yield SimpleNamespace(settings=settings, keys=in_production.prepare(settings))


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    """Each test starts with no remembered answer and no fetch waiting to be written; a test writes them itself, since
    a thread would do it in the middle of another test."""
    monkeypatch.setattr(recorder._state, "automatic", False)
    handler.clear_cache()
    recorder.clear()
    rate_limit.clear()


@pytest.fixture(autouse=True)
def _no_connection_left():
    """The connections of fetches would keep the database from being deleted."""
    yield
    handler.database.close()


@pytest.fixture(autouse=True)
def _this_machine_only(monkeypatch):
    """Tests talk to nobody but this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise AssertionError(f"a test tried to reach {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _is_local(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture
def issuer(settings):
    """An issuer of GitHub's tokens that the store trusts."""
    playing = Issuer()
    settings.OIDC_ISSUERS = [playing.address]
    oidc.clear_keys()
    yield playing
    oidc.clear_keys()
    playing.close()
