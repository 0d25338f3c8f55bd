"""Requests made up from the OpenAPI description: every reply is one that the description allows, and none is a 5xx."""

from pathlib import Path

import pytest
import schemathesis
import yaml
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from schemathesis import checks

import policystore.runners
from policystore.accounts.actors import Actor
from policystore.documents.scopes import Scope
from policystore.policies.actions import attachments
from policystore.runners import fetch, recorder
from policystore.runners.front import FetchFirst
from policystore.runners.views import open_calls
from tests import factories

DESCRIPTION = yaml.safe_load((Path(policystore.runners.__file__).parent / "openapi.yaml").read_text())
OPERATIONS = [
    (path, method) for path, item in DESCRIPTION["paths"].items() for method in item if method != "parameters"
]
PROMISES = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
GENEROUS = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def api(db):
    fetch.forget_answers()
    recorder.forget()
    open_calls.forget()
    # The test's transaction must outlive each request.
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield schemathesis.openapi.from_wsgi("/v1/openapi.json", FetchFirst(get_wsgi_application()))
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def keys(db):
    """The Authorization of a runner and of a system of octo-org, which has a policy."""
    organization = factories.organization("octo-org")
    policy = factories.policy(organization, "ci")
    attachments.modify(policy=policy, add=[Scope.for_organization("octo-org")], by=Actor("ann"))
    runner, system = factories.api_key(organization), factories.management_key(organization)
    return {"Management": f"Bearer {system}", "Runtime": f"vm-api-key {runner}", "Telemetry": f"vm-api-key {runner}"}


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[" ".join(names) for names in OPERATIONS])
def test_a_made_up_request_gets_a_described_reply(api, keys, path, method):
    operation = api[path][method.upper()]
    authorization = keys[DESCRIPTION["paths"][path][method]["tags"][0]]

    @GENEROUS
    @given(case=operation.as_strategy())
    def ask(case):
        if "owner" in (case.path_parameters or {}):
            case.path_parameters["owner"] = "octo-org"
        response = case.call(headers={"Authorization": authorization, "Host": "testserver"})
        case.validate_response(response, checks=PROMISES)

    ask()


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[" ".join(names) for names in OPERATIONS])
def test_without_a_key_nothing_is_a_server_error(api, db, path, method):
    @GENEROUS
    @given(case=api[path][method.upper()].as_strategy())
    def ask(case):
        assert case.call(headers={"Host": "testserver"}).status_code < 500

    ask()
