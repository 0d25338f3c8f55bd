"""Cluster base addresses, `/v1/clusters/NAME`, which clients use that send no cluster."""

import pytest

from policystore.accounts.models import SYSTEM
from policystore.inventory.models import Cluster
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import protocol
from policystore.runners.clusters import ClusterAddress
from policystore.runners.fetch import recorder
from policystore.runners.models import JobRun
from policystore.web.request_log import RequestLog
from tests import factories
from tests.runners.asking import ask, before_django, through_django

pytestmark = pytest.mark.django_db

BASE = "/v1/clusters/prod-k8s"
JOB = "/github/octo-org/hello-world/actions"
FETCH = f"{JOB}/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=arc-1"
CHECK = f"{JOB}/policies/workflow-check?workflow=ci.yml&run_id=1&correlationId=arc-1"
MONITOR = f"{JOB}/runs/1/monitor"
SCOPES = {
    "cluster": Scope.for_cluster("octo-org", "prod-k8s"),
    "organization": Scope.for_organization("octo-org"),
    "repository": Scope.for_repository("octo-org", "hello-world"),
    "workflow": Scope.for_workflow("octo-org", "hello-world", "ci.yml"),
}


@pytest.fixture(autouse=True)
def _fresh():
    protocol.clear()
    yield
    protocol.clear()


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def bearer(organization):
    return {"authorization": f"vm-api-key {factories.api_key(organization, kind='arc')}"}


def attach(organization, name, scope):
    attachments.ModifyAttachments(policy=factories.policy(organization, name), add=[scope]).apply(by=SYSTEM)


@pytest.mark.parametrize("fetch", [through_django, before_django], ids=["through Django", "before Django"])
def test_a_fetch_below_a_cluster_gets_the_clusters_policy_unless_a_more_specific_one_applies(
    organization, bearer, fetch
):
    attach(organization, "cluster", SCOPES["cluster"])
    assert fetch("GET", f"/v1{FETCH}", bearer).status == 404
    assert fetch("GET", f"/v1/clusters/other{FETCH}", bearer).status == 404
    served = []
    for name in ("cluster", "organization", "repository", "workflow"):
        if name != "cluster":
            attach(organization, name, SCOPES[name])
        served.append(fetch("GET", f"{BASE}{FETCH}", bearer).json()["policy_name"])
    assert served == ["cluster", "organization", "repository", "workflow"]


@pytest.mark.parametrize("fetch", [through_django, before_django], ids=["through Django", "before Django"])
def test_the_address_takes_precedence_over_the_parameter(organization, bearer, fetch):
    attach(organization, "cluster", SCOPES["cluster"])
    assert fetch("GET", f"{BASE}{FETCH}&cluster=other", bearer).status == 200
    assert fetch("GET", f"/v1/clusters/other{FETCH}&cluster=prod-k8s", bearer).status == 404
    recorder.flush()
    assert JobRun.objects.get().cluster == "other"


def test_the_cluster_is_one_of_the_organization_in_the_path(organization, bearer):
    other = factories.organization("other")
    attach(other, "theirs", Scope.for_cluster("other", "prod-k8s"))
    theirs = {"authorization": f"vm-api-key {factories.api_key(other, kind='arc')}"}
    assert ask("GET", f"{BASE}{FETCH}", bearer).status == 404
    assert ask("GET", f"{BASE}{FETCH}", theirs).status == 403
    check = CHECK.replace("octo-org", "other")
    assert ask("GET", f"{BASE}{check}").json()["has_policy"] is True
    assert ask("GET", f"{BASE}{CHECK}").json()["has_policy"] is False


def test_the_arc_hooks_calls_answer_below_a_cluster(organization, bearer):
    attach(organization, "cluster", SCOPES["cluster"])
    assert ask("HEAD", BASE).status == 200
    assert ask("GET", f"{BASE}{CHECK}").json() == {"has_policy": True, "should_sleep": True}
    status = f"{JOB}/policies/workflow-policy/status?correlation_id=arc-1"
    assert ask("GET", f"{BASE}{status}").json() == {"status": "NOT_APPLIED"}
    assert ask("GET", f"{BASE}{FETCH}", bearer).status == 200
    recorder.flush()
    assert ask("GET", f"{BASE}{status}").json() == {"status": "APPLIED"}
    summary = ask("GET", f"{BASE}{JOB}/runs/1/correlation/arc-1/job-markdown-summary?environment=ARC")
    assert "Cluster `prod-k8s`" in summary.body.decode()
    assert list(Cluster.objects.values_list("name", flat=True)) == ["prod-k8s"]


def test_the_agents_calls_answer_below_a_cluster(organization):
    registered = ask("POST", f"{BASE}{MONITOR}", body={"correlation_id": "arc-1", "job": "build"}).json()
    key = {"x-one-time-key": registered["one_time_key"]}
    event = {"domainName": "github.com.", "ipAddress": "140.82.121.3", "timestamp": "2026-01-02T03:04:05Z"}
    assert ask("POST", f"{BASE}{JOB}/jobs/arc-1/dns", key, event).status == 200
    assert ask("POST", f"{BASE}{JOB}/jobs/arc-1/events", key, []).status == 200
    assert ask("POST", f"{BASE}{JOB}/jobs/arc-1/detections", key, []).status == 200
    assert ask("GET", f"{BASE}{JOB}/subscription").status == 200
    assert ask("GET", f"{BASE}/github/octo-org/actions/tls-inspection-status").status == 403
    assert ask("GET", f"{BASE}/global-feature-flags?agent_type=arc").json()["agent_type"] == "arc"
    assert ask("GET", f"{BASE}/global-blocklist").status == 200
    assert JobRun.objects.get().cluster == "prod-k8s"


def test_a_registration_without_a_key_does_not_move_a_fetched_job_to_another_cluster(organization, bearer):
    ask("GET", f"{BASE}{FETCH}", bearer)
    recorder.flush()
    body = {"correlation_id": "arc-1", "job": "build"}
    ask("POST", f"/v1/clusters/other{MONITOR}", body=body)
    assert JobRun.objects.get().cluster == "prod-k8s"
    ask("POST", f"/v1/clusters/other{MONITOR}", body={**body, "correlation_id": "arc-2"})
    ask("POST", f"{BASE}{MONITOR}", body={**body, "correlation_id": "arc-2"})
    assert JobRun.objects.get(correlation_id="arc-2").cluster == "other"


@pytest.mark.parametrize("name", ["", "-x", "prod%20k8s", "%C3%BCbel", "a" * 254, "x%0A", ".."])
def test_an_invalid_name_is_refused_with_an_example(name):
    answer = ask("GET", f"/v1/clusters/{name}{CHECK}")
    assert (answer.status, answer.json()["error"]) == (400, "invalid_cluster")
    assert "for example /v1/clusters/prod-k8s" in answer.json()["message"]
    assert ask("POST", f"/v1/clusters/{name}").status == 400


def test_the_longest_and_the_oddest_valid_names_are_understood(organization):
    for name in ("a" * 253, "clusters", "v1", "A.b_c-9"):
        assert ask("HEAD", f"/v1/clusters/{name}").status == 200
    assert ask("GET", "/v1/clusters/prod-k8s/nothing").json()["error"] == "unknown_route"
    assert ask("GET", "/v1/clusters/prod-k8s/").json()["error"] == "unknown_route"


def test_the_request_log_shows_the_address_as_it_was_sent(capsys):
    def answer(environ, start_response):
        assert environ["PATH_INFO"] == "/v1/global-blocklist"
        start_response("200 OK", [])
        return []

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": f"{BASE}/global-blocklist"}
    RequestLog(ClusterAddress(answer))(environ, lambda *started: None)
    assert f"GET {BASE}/global-blocklist 200 " in capsys.readouterr().err
