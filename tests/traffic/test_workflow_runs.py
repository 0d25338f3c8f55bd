"""Runs are workflow runs: the jobs of a matrix, the other jobs of a run, and re-runs count once."""

from datetime import timedelta

import pytest
from django.utils import timezone

from policystore.detections import actions
from policystore.runners.models import JobRun
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.models import JobEndpoint
from tests import factories
from tests.runners.asking import ask
from tests.traffic.test_ingest import call, job_run, send

pytestmark = pytest.mark.django_db

JOB = BaselineScope("hello-world", "ci.yml", "build", is_job=True)
REPOSITORY, ORGANIZATION, CLUSTER = BaselineScope("hello-world"), BaselineScope(), BaselineScope(cluster="k8s")


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def runs_in(organization, scope):
    return {found.host: found.runs for found in baseline.endpoints(organization, scope)}


def total_runs(organization):
    headers = {"authorization": f"Bearer {factories.management_key(organization)}"}
    data = ask("GET", "/v1/github/octo-org/actions/baseline", headers).json()["data"]
    return data["total_workflow_runs"], {row["endpoint"]: row["total_workflow_runs"] for row in data["endpoints"]}


def test_two_runs_of_a_matrix_of_60_jobs_are_two_runs(organization, settings):
    settings.BASELINE_STABLE_RUNS = 100
    for run_id in ("1", "2"):
        for number in range(60):
            job_run(organization, f"{run_id}-{number}", run_id)
            send([call("github.com"), *([call("rare.example")] if number == 7 else [])], f"{run_id}-{number}")
    for scope in (JOB, REPOSITORY, ORGANIZATION):
        assert runs_in(organization, scope) == {"github.com": 2, "rare.example": 2}
        found = baseline.stability(organization, scope)
        assert (found.state, found.runs) == ("creating", 2)
    assert total_runs(organization) == (2, {"github.com:443": 2, "rare.example:443": 2})


def test_a_rerun_and_other_jobs_of_a_run_count_once_in_each_scope(organization):
    for correlation_id, run_id, job, cluster in (
        ("a", "1", "build", ""),
        ("b", "1", "build", "k8s"),
        ("c", "1", "test", "k8s"),
        ("again", "1", "build", ""),
        ("d", "2", "build", ""),
    ):
        job_run(organization, correlation_id, run_id, job=job, cluster=cluster)
        send([call("github.com")], correlation_id)
    assert runs_in(organization, JOB) == {"github.com": 2}
    assert runs_in(organization, CLUSTER) == {"github.com": 1}
    assert runs_in(organization, REPOSITORY) == runs_in(organization, ORGANIZATION) == {"github.com": 2}
    assert total_runs(organization)[0] == 2
    counted = [baseline.stability(organization, scope).runs for scope in (JOB, CLUSTER, REPOSITORY, ORGANIZATION)]
    assert counted == [2, 1, 2, 2]


def test_runs_without_an_id_count_each(organization):
    for correlation_id in ("a", "b"):
        job_run(organization, correlation_id, "")
        vm = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
        send([call("github.com")], correlation_id, vm)
    assert runs_in(organization, ORGANIZATION) == {"github.com": 2}


def test_a_job_that_is_named_late_takes_its_run_along_and_leaves_its_siblings_theirs(organization):
    early = [job_run(organization, correlation_id, "1", job="", workflow="") for correlation_id in ("a", "b")]
    for run in early:
        send([call("github.com")], run.correlation_id)
    assert runs_in(organization, ORGANIZATION) == {"github.com": 1}
    now = timezone.now()
    JobRun.objects.filter(pk=early[0].pk).update(job="build", workflow="ci.yml", fetched_at=now)
    assert actions.settle_early(now=now + timedelta(seconds=20)) == 1
    unnamed = BaselineScope("hello-world", is_job=True)
    assert (runs_in(organization, JOB), runs_in(organization, unnamed)) == ({"github.com": 1}, {"github.com": 1})
    assert runs_in(organization, ORGANIZATION) == {"github.com": 1}
    assert [baseline.stability(organization, scope).runs for scope in (JOB, unnamed, ORGANIZATION)] == [1, 1, 1]
    JobRun.objects.filter(pk=early[1].pk).update(job="build", workflow="ci.yml", fetched_at=now)
    assert actions.settle_early(now=now + timedelta(seconds=60)) == 1
    assert runs_in(organization, JOB) == runs_in(organization, ORGANIZATION) == {"github.com": 1}
    assert baseline.stability(organization, JOB).runs == 1
    assert JobEndpoint.objects.count() == 1


def test_the_first_run_of_a_matrix_has_no_new_endpoints(organization):
    for number, host in enumerate(("one.example", "two.example")):
        job_run(organization, f"a-{number}", "1")
        send([call(host)], f"a-{number}")
    job_run(organization, "b", "2")
    send([call("three.example")], "b")
    assert list(JobRun.objects.order_by("pk").values_list("new_endpoints", flat=True)) == [0, 0, 1]
