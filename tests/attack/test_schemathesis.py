"""Requests made up from the OpenAPI description: every reply is one that the description allows, and none is a 5xx."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
import schemathesis
import yaml
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connection
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks

import policystore.api
from policystore.detections import actions
from policystore.runners import protocol
from policystore.runners.clusters import ClusterAddress
from policystore.runners.fetch.app import FetchFirst
from policystore.runners.models import JobRun
from policystore.runners.protocol import one_time_key
from tests import factories
from tests.attack.bad_inputs.asking import world
from tests.attack.test_language import rounds
from tests.attack.test_language_served import unchanged
from tests.figures import FIGURES

pytestmark = pytest.mark.django_db
SHORT, LONG = 12, 400

DESCRIPTION = yaml.safe_load((Path(policystore.api.__file__).parent / "openapi.yaml").read_text())
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
# What the store knows, so that more is asked than what is not there.
KNOWN = {
    "cluster": "prod-k8s",
    "owner": "octo-org",
    "repository": "hello-world",
    "workflow": "ci.yml",
    "run_id": "1",
    "correlation_id": "job-1",
    "correlationId": "job-1",
    "name": "ci",
    "status": "new",
}
# One part of a path, which a server does not take for two or for none.
parts = st.text(min_size=1, max_size=40).filter(lambda text: "/" not in text and text not in (".", ".."))

each_operation = pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[" ".join(names) for names in OPERATIONS])


@pytest.fixture(scope="module")
def described(django_db_setup, django_db_blocker):
    """The description as the store serves it, read once: that takes longer than most tests."""
    with django_db_blocker.unblock():
        return schemathesis.openapi.from_wsgi("/v1/openapi.json", ClusterAddress(FetchFirst(get_wsgi_application())))


@pytest.fixture
def api(described, there):
    # The test's transaction must outlive each request. Django's own client, which `there` uses, connects them again.
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield described
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def there(db):
    """octo-org with a policy that blocks, a job that fetched it, and a detection of that job."""
    there = world()
    actions.report(run=JobRun.objects.get(), reports=[actions.parse_report({"id": "Reverse-Shell", "process": "bash"})])
    return there


@pytest.fixture(scope="module")
def answers(request):
    """Counts the answers of all tests of this file, and tells them once each operation was asked in both ways."""
    count = Counter()
    yield count
    statuses = {status: count[status] for status in sorted(count.keys() - {"inputs", "operations"})}
    if count["operations"] == 2 * len(OPERATIONS):
        request.config.stash[FIGURES].append(
            f"schemathesis on {connection.vendor}: {len(OPERATIONS)} operations, {count['inputs']:,} requests,"
            f" answers {statuses}, 0 undescribed, none 5xx"
        )


def good_keys(there, described):
    """The headers of each that may ask this."""
    held = {
        "managementKey": {"Authorization": f"Bearer {there.ids['MANAGEMENT']}"},
        "runnerKey": {"Authorization": f"vm-api-key {there.ids['VM']}"},
        "oneTimeKey": {"X-One-Time-Key": one_time_key("octo-org", "hello-world", "job-1", "1")},
    }
    # GitHub alone can sign its tokens.
    schemes = [scheme for choice in described["security"] for scheme in choice if not scheme.endswith("Token")]
    return [held[scheme] for scheme in schemes] or list(held.values())


def bad_keys():
    """The headers of those that may ask nothing of octo-org."""
    theirs = factories.organization("theirs")
    system, runner = factories.management_key(theirs), factories.api_key(theirs)
    written = ["Bearer x", "Bearer x.y.z", "Basic eDp5", "vm-api-key", f"Bearer {system}", f"vm-api-key {runner}"]
    unknown = f"vm-api-key {runner[:-1]}{'0' if runner[-1] != '0' else '1'}"
    of_another_job = {"X-One-Time-Key": one_time_key("octo-org", "hello-world", "job-2", "1")}
    return [{}, of_another_job, *({"Authorization": text} for text in (*written, unknown))]


def made_up(operation, described):
    """Cases as described, and where something of them can be otherwise, such as are not, at an address that is."""
    as_described = operation.as_strategy()
    if "requestBody" not in described and "parameters" not in described:
        return as_described
    known = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in operation.path} or None
    return st.one_of(as_described, operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=known))


@st.composite
def requests(draw, cases, keys):
    """A case, the headers of who asks, and whether changes wait for a second person."""
    case, names = draw(cases), draw(st.sets(st.sampled_from(sorted(KNOWN))))
    for given in (case.path_parameters or {}, case.query or {}):
        given.update({name: KNOWN[name] for name in names & given.keys()})
    for name in sorted((case.path_parameters or {}).keys() - names):
        if name != "owner" and draw(st.integers(0, 9)) == 0:
            case.path_parameters[name] = quote(draw(parts), safe="")
    return case, draw(st.sampled_from(keys)), draw(st.booleans())


def put_all(api, there, answers, *, path, method, keys, full, also=lambda answer: None):
    """Ask one operation as many requests as are wanted; each finds the store as the one before found it."""
    described = DESCRIPTION["paths"][path][method]
    count = Counter()

    @unchanged
    def put(made):
        case, key, waits = made
        protocol.clear()
        if waits:
            factories.four_eyes_on(there.organization)
        if "owner" in (case.path_parameters or {}):
            case.path_parameters["owner"] = KNOWN["owner"]
        answer = case.call(headers={**key, "Host": "testserver"})
        case.validate_response(answer, checks=PROMISES)
        also(answer)
        count[answer.status_code] += 1
        count["inputs"] += 1

    cases = made_up(api[path][method.upper()], described)
    rounds(LONG if full else SHORT, count, put, requests(cases, keys))
    answers.update(count)
    answers["operations"] += 1


@each_operation
def test_a_made_up_request_gets_a_described_reply(there, api, answers, full, path, method):
    keys = good_keys(there, DESCRIPTION["paths"][path][method])
    put_all(api, there, answers, path=path, method=method, keys=keys, full=full)


@each_operation
def test_without_a_good_key_what_needs_one_is_refused(there, api, answers, full, path, method):
    security = DESCRIPTION["paths"][path][method]["security"]
    needs_one = bool(security) and {} not in security

    def is_refused(answer):
        assert not needs_one or answer.status_code in (401, 403), answer.request.url

    put_all(api, there, answers, path=path, method=method, keys=bad_keys(), full=full, also=is_refused)


@each_operation
def test_a_host_name_that_is_not_the_stores_gets_the_described_reply(api, path, method):
    given = {name: KNOWN.get(name, "latest") for name in re.findall(r"{(\w+)}", path)}
    case = api[path][method.upper()].Case(path_parameters=given)
    answer = case.call(headers={"Host": "evil.example"})
    case.validate_response(answer, checks=PROMISES)
    assert (answer.status_code, answer.json()["error"]) == (400, "wrong_host")
    name = DESCRIPTION["paths"][path][method]["responses"]["400"]["$ref"].rpartition("/")[2]
    assert "`wrong_host`" in DESCRIPTION["components"]["responses"][name]["description"]
