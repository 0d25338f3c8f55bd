"""The policy fetch, as the real clients send it and as nobody should; the same table for both ways of answering."""

import json
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from django.db import DataError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from policystore.accounts.models import Actor, ApiKey
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import job_runs
from policystore.runners.fetch import handler, recorder
from policystore.runners.models import JobRun, LastFetch
from tests import factories
from tests.runners.asking import before_django, through_django

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
GOLDEN = json.loads((Path(__file__).parent.parent / "contract" / "golden_requests.json").read_text())
GOLDEN_FETCHES = [call for call in GOLDEN if "/workflow-policy?" in call["target"]]
TARGET = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy"
ASKED = "?workflow=ci.yml&run_id=9876543210&correlationId=a86e0103-ab28-4994-b364-6f125aef2177"
SCOPES = {
    "cluster": Scope.for_cluster("octo-org", "dev-k8s"),
    "organization": Scope.for_organization("octo-org"),
    "repository": Scope.for_repository("octo-org", "hello-world"),
    "workflow": Scope.for_workflow("octo-org", "hello-world", "ci.yml"),
}


@pytest.fixture(params=[through_django, before_django], ids=["through Django", "before Django"])
def ask(request):
    return request.param


@pytest.fixture(autouse=True)
def forgetful():
    handler.clear_cache()
    recorder.clear()
    yield
    recorder.clear()


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def key(organization):
    return factories.api_key(organization, kind="vm", slot="primary")


@pytest.fixture
def bearer(key):
    return {"authorization": f"vm-api-key {key}"}


def attach(organization, name, *scopes, text="egress-policy: block\nallowed-endpoints: github.com:443\n"):
    policy = policies.create(organization=organization, name=name, text=text, by=ANN)
    attachments.ModifyAttachments(policy=policy, add=scopes).apply(by=ANN)
    return policy


@pytest.mark.parametrize("call", GOLDEN_FETCHES, ids=lambda call: f"{call['client']}, {call['note']}")
def test_it_answers_each_recorded_fetch_in_the_contracts_shape(ask, organization, key, call):
    attach(organization, "org-default", SCOPES["organization"])
    headers = {
        name.lower(): value for name, value in call["headers"].items() if name.lower() not in ("host", "connection")
    }
    headers["authorization"] = f"vm-api-key {key}"
    answer = ask(call["method"], call["target"], headers)
    assert answer.status == 200
    assert answer.json() == {
        "policy_name": "org-default",
        "owner": "octo-org",
        "policyName": "org-default",
        "allowed_endpoints": ["github.com:443"],
        "egress_policy": "block",
        "disable_sudo": False,
        "disable_sudo_and_containers": False,
        "disable_file_monitoring": False,
        "disable_telemetry": False,
    }


def test_the_most_specific_policy_wins(ask, organization, bearer):
    target = f"{TARGET}{ASKED}&cluster=dev-k8s"
    for level, scope in SCOPES.items():
        attach(organization, level, scope)
        assert ask("GET", target, bearer).json()["policy_name"] == level


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ("ci.yml", "exact"),
        ("CI.yml", "fallback"),
        ("", "fallback"),
        ("my%20build%20%26%20test.yml", "spaced"),
        ("octo-org%2Fhello-world%2Fdynamic%2Fgithub-code-scanning%2Fcodeql", "dynamic"),
        ("%FF%00", "fallback"),
        ("a" * 5000, "fallback"),
    ],
)
def test_the_workflow_is_found_however_it_is_written(ask, organization, bearer, workflow, expected):
    attach(organization, "exact", SCOPES["workflow"])
    attach(organization, "spaced", Scope.for_workflow("octo-org", "hello-world", "my build & test.yml"))
    dynamic = "octo-org/hello-world/dynamic/github-code-scanning/codeql"
    attach(organization, "dynamic", Scope.for_workflow("octo-org", "hello-world", dynamic))
    attach(organization, "fallback", SCOPES["repository"])
    assert (
        ask("GET", f"{TARGET}?workflow={workflow}&run_id=1&correlationId=c", bearer).json()["policy_name"] == expected
    )


@pytest.mark.parametrize("owner", ["octo-org", "Octo-Org", "customer::github.example.com::octo-org"])
def test_the_owner_is_found_without_case_and_on_an_enterprise_server(ask, organization, bearer, owner):
    attach(organization, "repo", SCOPES["repository"])
    target = f"/v1/github/{owner}/Hello-World/actions/policies/workflow-policy{ASKED}"
    assert ask("GET", target, bearer).json()["policy_name"] == "repo"


def test_no_policy_is_a_404_with_a_json_body(ask, organization, bearer):
    answer = ask("GET", TARGET + ASKED, bearer)
    assert (answer.status, answer.json()["error"]) == (404, "no_policy")


@pytest.mark.parametrize(
    "authorization",
    ["", "vm-api-key", "vm-api-key nonsense", "Bearer {key}", "vm-api-key {key}x", "vm-api-key step_test_key_123"],
)
def test_no_or_a_bad_key_is_a_401(ask, organization, key, authorization):
    attach(organization, "org", SCOPES["organization"])
    answer = ask("GET", TARGET + ASKED, {"authorization": authorization.format(key=key)})
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")


def test_a_regenerated_key_stops_the_old_one_and_leaves_its_pair(ask, organization, key):
    attach(organization, "org", SCOPES["organization"])
    secondary = factories.api_key(organization, kind="vm", slot="secondary")
    renewed = factories.api_key(organization, kind="vm", slot="primary")
    statuses = [
        ask("GET", TARGET + ASKED, {"authorization": f"vm-api-key {k}"}).status for k in (key, secondary, renewed)
    ]
    assert statuses == [401, 200, 200]


def test_another_organizations_key_reads_nothing(ask, organization, bearer):
    other = factories.organization("other")
    attach(other, "secret", Scope.for_organization("other"))
    answer = ask("GET", f"/v1/github/other/repo/actions/policies/workflow-policy{ASKED}", bearer)
    assert (answer.status, answer.json()["error"]) == (403, "forbidden")
    assert b"secret" not in answer.body


def test_a_management_key_fetches_nothing(ask, organization):
    management = factories.management_key(organization, "terraform")
    assert ask("GET", TARGET + ASKED, {"authorization": f"vm-api-key {management}"}).status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(ask, organization, bearer, method):
    answer = ask(method, TARGET + ASKED, bearer)
    assert (answer.status, answer.json()["error"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


def test_an_edit_is_served_at_the_next_fetch(ask, organization, bearer):
    policy = attach(organization, "org", SCOPES["organization"])
    assert ask("GET", TARGET + ASKED, bearer).json()["egress_policy"] == "block"
    policies.UpdatePolicy(
        policy=policy, name="org", description="", text="egress-policy: audit\n", expected_version=1
    ).apply(by=ANN)
    assert ask("GET", TARGET + ASKED, bearer).json()["egress_policy"] == "audit"


def test_one_statement_answers(ask, organization, bearer, django_assert_num_queries):
    attach(organization, "org", SCOPES["organization"])
    with django_assert_num_queries(1):
        assert ask("GET", TARGET + ASKED, bearer).status == 200


def test_each_fetch_is_recorded_as_a_job_run(ask, organization, bearer):
    policy = attach(organization, "org", SCOPES["organization"])
    ask("GET", TARGET + ASKED, bearer)
    ask("GET", TARGET + ASKED, bearer)
    assert not JobRun.objects.exists()
    assert recorder.flush() == 2
    run = JobRun.objects.get()
    assert (run.organization, run.repository, run.workflow) == (organization, "hello-world", "ci.yml")
    assert (run.run_id, run.correlation_id) == ("9876543210", "a86e0103-ab28-4994-b364-6f125aef2177")
    assert (run.policy_id, run.policy_name, run.policy_version) == (policy.pk, "org", 1)
    assert (run.scope_key, run.egress_policy) == ("organization:octo-org", "block")


def test_a_fetch_teaches_the_store_its_repository_and_workflow_and_marks_the_key_used(ask, organization, bearer):
    ask("GET", TARGET + ASKED + "&cluster=dev-k8s", bearer)
    recorder.flush()
    repository = organization.repositories.get()
    assert (repository.name, repository.workflows.get().file_name) == ("hello-world", "ci.yml")
    assert organization.clusters.get().name == "dev-k8s"
    assert organization.api_keys.get().last_used_at is not None


def test_a_cluster_is_learned_from_a_known_workflow_and_a_repository_from_a_fetch_that_names_no_workflow(
    ask, organization, bearer
):
    ask("GET", TARGET + ASKED, bearer)
    recorder.flush()
    ask("GET", TARGET + ASKED + "&cluster=dev-k8s", bearer)
    ask("GET", "/v1/github/octo-org/Bare/actions/policies/workflow-policy?run_id=1&correlationId=1", bearer)
    recorder.flush()
    assert organization.clusters.get().name == "dev-k8s"
    assert list(organization.repositories.values_list("name", flat=True)) == ["Bare", "hello-world"]


def test_known_and_new_workflows_of_one_batch_all_have_their_last_fetch(ask, organization, bearer):
    for number, workflows in enumerate((["a.yml"], ["a.yml", "b.yml"])):
        for workflow in workflows:
            ask("GET", f"{TARGET}?workflow={workflow}&run_id={number}&correlationId={workflow}", bearer)
        recorder.flush()
    last = LastFetch.objects.filter(workflow__repository__organization=organization)
    assert list(last.order_by("workflow__file_name").values_list("workflow__file_name", "run_id")) == [
        ("a.yml", "1"),
        ("b.yml", "1"),
    ]


def test_a_batch_whose_names_are_all_known_is_written_by_few_statements(ask, organization, bearer):
    ask("GET", TARGET + ASKED, bearer)
    recorder.flush()
    for number in range(5):
        ask("GET", f"{TARGET}?workflow=ci.yml&run_id={number}&correlationId=1", bearer)
    with CaptureQueriesContext(connection) as queries:
        recorder.flush()
    written = [query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]]
    assert len(written) == {"postgresql": 1, "sqlite": 3}[connection.vendor]
    tables = re.findall(r"(?:INTO|UPDATE) \"?(runners_\w+|accounts_\w+)", " ".join(written))
    assert sorted(tables) == ["accounts_apikey", "runners_jobrun", "runners_lastfetch"]


def test_of_several_fetches_in_a_batch_the_latest_is_the_last_of_its_workflow_and_key(ask, organization, bearer):
    for number in (1, 2):
        for repository in ("hello-world", "Hello-World"):
            target = f"/v1/github/octo-org/{repository}/actions/policies/workflow-policy"
            ask("GET", f"{target}?workflow=ci.yml&run_id={9 - number}&correlationId={repository}", bearer)
        recorder.flush()
    latest = JobRun.objects.order_by("fetched_at").last()
    used = ApiKey.objects.get(organization=organization, kind="vm").last_used_at
    noted = LastFetch.objects.get(workflow__repository__organization=organization)
    assert (noted.at, noted.run_id, noted.correlation_id) == (latest.fetched_at, "7", "Hello-World")
    assert used > latest.fetched_at - timedelta(seconds=1)


def test_an_older_batch_moves_no_last_fetch_and_no_last_use_backwards(ask, organization, bearer):
    ask("GET", TARGET + ASKED, bearer)
    recorder.flush()
    noted, used = LastFetch.objects.get(), ApiKey.objects.get(organization=organization, kind="vm").last_used_at
    ask("GET", f"{TARGET}?workflow=ci.yml&run_id=older&correlationId=older", bearer)
    late = recorder._state.queue.pop()
    recorder.record(late._replace(at=late.at - timedelta(hours=1)))
    recorder.flush()
    assert JobRun.objects.filter(run_id="older").exists()
    assert LastFetch.objects.get().run_id == noted.run_id
    assert ApiKey.objects.get(organization=organization, kind="vm").last_used_at == used


def test_a_key_with_which_a_job_asked_before_it_asked_with_another_was_used(ask, organization, key):
    for one in (factories.api_key(organization, "arc"), key):
        ask("GET", TARGET + ASKED, {"authorization": f"vm-api-key {one}"})
    recorder.flush()
    assert JobRun.objects.count() == 1
    assert ApiKey.objects.filter(organization=organization, last_used_at=None).count() == 0


def test_a_workflow_with_a_later_fetch_by_another_process_is_known(ask, organization, bearer):
    for number in (1, 2):
        ask("GET", f"{TARGET}?workflow=ci.yml&run_id={number}&correlationId=a", bearer)
    later = recorder._state.queue.pop()
    earlier = recorder._state.queue.pop()
    recorder.record(later)
    recorder.flush()
    recorder.record(earlier)
    with CaptureQueriesContext(connection) as queries:
        recorder.flush()
    assert LastFetch.objects.get().run_id == "2"
    if connection.vendor == "postgresql":
        assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) == 1


def test_a_cluster_with_an_endless_name_is_noted_as_far_as_it_fits(ask, organization, bearer):
    for cluster in ("short", "c" * 300):
        ask("GET", f"{TARGET}?workflow=ci.yml&run_id=1&correlationId=1&cluster={cluster}", bearer)
        recorder.flush()
    assert LastFetch.objects.get().cluster == JobRun.objects.get().cluster == "c" * 255


def test_nonsense_from_a_runner_is_recorded_without_harm(ask, organization, bearer):
    ask("GET", "/v1/github/octo-org/" + "r" * 400 + "/actions/policies/workflow-policy?workflow=" + "w" * 3000, bearer)
    ask("GET", TARGET + "?workflow=%00%FF%ED%A0%80&run_id=%00&correlationId=%F0%28", bearer)
    assert recorder.flush() == 2
    assert JobRun.objects.count() == 2


def test_a_dynamic_workflow_with_an_endless_name_is_recorded_without_harm(ask, organization, bearer):
    ask("GET", f"{TARGET}?workflow={'a' * 300}/{'b' * 300}/dynamic/codeql", bearer)
    assert recorder.flush() == 1
    assert JobRun.objects.get().workflow.startswith("aaa")


def test_a_fetch_that_cannot_be_recorded_holds_up_no_other(ask, organization, bearer, monkeypatch, caplog):
    record = job_runs.record_fetches

    def picky(*, fetches):
        record(fetches=fetches)
        if any(fetch.correlation_id == "bad" for fetch in fetches):
            raise DataError("value too long")

    monkeypatch.setattr(job_runs, "record_fetches", transaction.atomic(picky))
    for correlation_id in ("before", "bad", "after"):
        ask("GET", f"{TARGET}?workflow=ci.yml&run_id=1&correlationId={correlation_id}", bearer)
    assert recorder.flush() == 3
    assert set(JobRun.objects.values_list("correlation_id", flat=True)) == {"before", "after"}
    assert "A fetch of hello-world/ci.yml is not recorded" in caplog.text
    assert recorder.flush() == 0


def test_what_is_recorded_waits_while_the_database_is_away(ask, organization, bearer, monkeypatch):
    def away(*, fetches):
        raise OperationalError("the server closed the connection unexpectedly")

    ask("GET", TARGET + ASKED, bearer)
    with monkeypatch.context() as patched:
        patched.setattr(job_runs, "record_fetches", away)
        with pytest.raises(OperationalError):
            recorder.flush()
    assert recorder.flush() == 1
    assert JobRun.objects.count() == 1


def test_a_refused_fetch_is_not_recorded(ask, organization):
    ask("GET", TARGET + ASKED, {"authorization": "vm-api-key nonsense"})
    assert recorder.flush() == 0


def test_the_last_good_answer_is_served_while_the_database_is_away(ask, organization, bearer, monkeypatch):
    attach(organization, "org", SCOPES["organization"])
    before = ask("GET", TARGET + ASKED, bearer)

    def refuse(*_):
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "cursor", refuse)
    during = ask("GET", TARGET + ASKED, bearer)
    unknown = ask("GET", TARGET + "?workflow=other.yml", bearer)
    assert (during.status, during.body) == (200, before.body)
    assert during.headers["policy-store-answer"] == "remembered"
    assert (unknown.status, unknown.json()["error"]) == (503, "unavailable")
    assert "policy-store-answer" not in before.headers


def test_a_foreign_host_name_is_refused(organization, bearer):
    for ask_it in (through_django, before_django):
        assert ask_it("GET", TARGET + ASKED, {**bearer, "host": "evil.example"}).status == 400


def test_a_fetch_that_cannot_be_recorded_is_answered_and_remembered(ask, organization, bearer, monkeypatch):
    attach(organization, "org", SCOPES["organization"])

    def fails(_):
        raise RuntimeError("can't start new thread")

    def refuse(*_):
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(recorder, "record", fails)
    assert ask("GET", TARGET + ASKED, bearer).status == 200
    monkeypatch.setattr(connection, "cursor", refuse)
    assert ask("GET", TARGET + ASKED, bearer).headers["policy-store-answer"] == "remembered"


def test_what_a_revoked_key_was_answered_is_not_remembered(ask, organization, bearer, monkeypatch):
    attach(organization, "org", SCOPES["organization"])
    assert ask("GET", TARGET + ASKED, bearer).status == 200
    organization.api_keys.update(revoked_at=timezone.now())
    assert ask("GET", TARGET + ASKED, bearer).status == 401

    def refuse(*_):
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "cursor", refuse)
    assert ask("GET", TARGET + ASKED, bearer).status == 503


@given(st.lists(st.sampled_from([*"=&+%", "%C3%A9", "%2", "workflow", "ci.yml", "\xe9", " ", ";", "\0"])).map("".join))
def test_a_query_string_is_read_as_pythons_own_reader_does(query):
    assert handler.parse_query(query) == dict(parse_qsl(query, keep_blank_values=True, errors="replace"))
