"""Runner routes while the database is unavailable: 401 and 403 are definite refusals, so neither may be the answer."""

import pytest
from django.db import OperationalError, connection

from policystore.accounts import api_keys
from policystore.runners import protocol
from policystore.runners.protocol import one_time_key
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

JOB = "github/octo-org/hello-world/actions"
ONE_TIME = {"x-one-time-key": one_time_key("octo-org", "hello-world", "job-1", "1")}
ROUTES = [
    ("GET", f"{JOB}/policies/workflow-check?workflow=ci.yml", {}, None),
    ("GET", f"{JOB}/policies/workflow-policy/status?correlation_id=job-1", {}, None),
    ("POST", f"{JOB}/runs/1/monitor", {}, {"correlation_id": "job-1", "job": "build"}),
    ("GET", f"{JOB}/runs/1/correlation/job-1/job-markdown-summary", {}, None),
    ("POST", f"{JOB}/jobs/job-1/dns", ONE_TIME, {"domainName": "github.com."}),
    ("POST", f"{JOB}/jobs/job-1/networkconnection", ONE_TIME, {}),
    ("POST", f"{JOB}/jobs/job-1/events", ONE_TIME, []),
    ("POST", f"{JOB}/jobs/job-1/detections", ONE_TIME, []),
    ("GET", f"{JOB}/policies/which?workflow=ci.yml", "key", None),
    ("GET", "github/octo-org/actions/policies/ci", "management key", None),
    ("GET", "github/octo-org/actions/baseline", "key", None),
    ("GET", "github/octo-org/actions/detections", "key", None),
]


@pytest.fixture(autouse=True)
def _fresh():
    protocol.clear()
    yield
    protocol.clear()


@pytest.fixture
def keys():
    organization = factories.organization("octo-org")
    return {
        "key": {"authorization": f"vm-api-key {factories.api_key(organization)}"},
        "management key": {"authorization": f"Bearer {factories.management_key(organization)}"},
    }


def away(execute, sql, params, many, context):
    raise OperationalError("server closed the connection unexpectedly")


@pytest.mark.parametrize("base", ["/v1", "/v1/clusters/prod-k8s"])
@pytest.mark.parametrize(("method", "target", "headers", "body"), ROUTES, ids=[route[1] for route in ROUTES])
def test_an_unavailable_database_is_not_a_refusal(keys, base, method, target, headers, body):
    headers = keys[headers] if isinstance(headers, str) else headers
    with connection.execute_wrapper(away):
        answer = ask(method, f"{base}/{target}", headers, body)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"{JOB}/subscription", 200),
        ("github/octo-org/actions/tls-inspection-status", 403),
        ("global-feature-flags", 200),
        ("", 200),
    ],
)
def test_answers_that_need_no_database_do_not_ask_it(target, status):
    with connection.execute_wrapper(away):
        assert ask("GET", f"/v1/{target}".rstrip("/")).status == status


def test_a_key_reads_while_the_database_takes_no_writes(keys, monkeypatch):
    def read_only(*, used):
        raise OperationalError("cannot execute UPDATE in a read-only transaction")

    monkeypatch.setattr(api_keys, "mark_used", read_only)
    assert ask("GET", f"/v1/{JOB}/policies/which?workflow=ci.yml", keys["key"]).status == 200
