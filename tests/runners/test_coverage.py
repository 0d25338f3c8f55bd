"""Harden Runner → Coverage, and what each run proves of enforcement, through fetches and pages."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from policystore.accounts.models import SYSTEM
from policystore.inventory import actions as inventory
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners import queries
from policystore.runners.fetch import recorder
from policystore.runners.models import Enforcement, JobRun
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db
AUDIT = "egress-policy: audit\n"


@pytest.fixture
def octo():
    return factories.organization("octo-org")


@pytest.fixture
def client(octo):
    client = Client()
    client.force_login(factories.member(octo), backend="policystore.accounts.access.RoleBackend")
    return client


def know(organization, *names):
    for name in names:
        repository, workflow = name.split("/")
        inventory.add_workflow(
            repository=inventory.add_repository(organization=organization, name=repository), file_name=workflow
        )


def fetch(key, name, correlation="job-1", cluster=""):
    repository, workflow = name.split("/")
    query = f"workflow={workflow}&run_id=1&correlationId={correlation}&cluster={cluster}"
    target = f"/v1/github/Octo-Org/{repository}/actions/policies/workflow-policy?{query}"
    answer = ask("GET", target, {"Authorization": f"vm-api-key {key}"})
    recorder.flush()
    return answer


def rows(organization, **narrowed):
    return {f"{row.repository}/{row.workflow}": row for row in queries.coverage_page(organization, **narrowed).rows}


def test_each_workflow_shows_the_policy_of_its_next_job_by_precedence(octo):
    know(octo, "One/ci.yml", "one/Deploy.yml", "two/ci.yml")
    for name, scope in (
        ("workflow", Scope.for_workflow("octo-org", "one", "ci.yml")),
        ("repository", Scope.for_repository("octo-org", "one")),
        ("organization", Scope.for_organization("octo-org")),
    ):
        attachments.ModifyAttachments(policy=factories.policy(octo, name), add=[scope]).apply(by=SYSTEM)
    found = rows(octo)
    assert {name: row.policy_name for name, row in found.items()} == {
        "One/ci.yml": "workflow",
        "One/Deploy.yml": "repository",
        "two/ci.yml": "organization",
    }
    assert found["One/Deploy.yml"].scope == Scope.for_repository("octo-org", "one")


def test_the_cluster_of_the_last_job_counts_where_nothing_else_applies(octo):
    key = factories.api_key(octo)
    policy = factories.policy(octo, "cluster")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_cluster("octo-org", "dev-k8s")]).apply(by=SYSTEM)
    assert fetch(key, "one/ci.yml", cluster="dev-k8s").status == 200
    row = rows(octo)["one/ci.yml"]
    assert (row.policy_name, row.is_outdated) == ("cluster", False)


def test_jobs_of_two_repositories_may_share_their_run_and_correlation_id(octo):
    key = factories.api_key(octo)
    attachments.ModifyAttachments(policy=factories.policy(octo), add=[Scope.for_repository("octo-org", "one")]).apply(
        by=SYSTEM
    )
    fetch(key, "One/ci.yml")
    fetch(key, "two/ci.yml")
    last_runs = {name: row.last_run for name, row in rows(octo).items()}
    assert {name: (run.repository, run.egress_policy) for name, run in last_runs.items()} == {
        "one/ci.yml": ("One", "block"),
        "two/ci.yml": ("two", ""),
    }


def test_a_workflow_is_outdated_from_a_change_until_its_next_fetch(octo):
    key = factories.api_key(octo)
    policy = factories.policy(octo)
    scope = Scope.for_organization("octo-org")
    attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=SYSTEM)
    fetch(key, "one/ci.yml")
    assert not rows(octo)["one/ci.yml"].is_outdated
    policies.UpdatePolicy(policy=policy, name="x", description="", text=AUDIT, expected_version=1).apply(by=SYSTEM)
    row = rows(octo, show="outdated")["one/ci.yml"]
    assert (row.served_version, row.policy_version, row.mode) == (1, 2, "audit")
    fetch(key, "one/ci.yml", "job-2")
    assert rows(octo, show="outdated") == {}
    attachments.ModifyAttachments(policy=policy, remove=[scope]).apply(by=SYSTEM)
    assert rows(octo, show="outdated")["one/ci.yml"].policy_id is None


def test_batches_that_are_written_late_do_not_replace_a_newer_fetch(octo):
    key = factories.api_key(octo)
    know(octo, "one/ci.yml")
    fetch(key, "one/ci.yml", "newer")
    older = JobRun.objects.get()
    fetch_of_before = recorder.Fetch(
        key_id=older.api_key_id,
        organization_id=octo.pk,
        repository="one",
        workflow="ci.yml",
        run_id="1",
        correlation_id="older",
        cluster="",
        policy_id=None,
        policy_name="",
        policy_version=None,
        egress_policy="",
        break_glass=False,
        staged_event_id=None,
        scope_key="",
        at=older.fetched_at - timezone.timedelta(seconds=5),
    )
    recorder.record(fetch_of_before)
    recorder.flush()
    assert rows(octo)["one/ci.yml"].last_run.correlation_id == "newer"


def test_the_counters_add_up_and_narrow_the_page(octo, client):
    key = factories.api_key(octo)
    know(octo, "one/ci.yml", "two/ci.yml", "three/ci.yml")
    blocking, auditing = factories.policy(octo, "blocking"), factories.policy(octo, "auditing", AUDIT)
    attachments.ModifyAttachments(policy=blocking, add=[Scope.for_repository("octo-org", "one")]).apply(by=SYSTEM)
    attachments.ModifyAttachments(policy=auditing, add=[Scope.for_repository("octo-org", "two")]).apply(by=SYSTEM)
    fetch(key, "one/ci.yml")
    expected = {"": 3, "block": 1, "audit": 1, "no-policy": 1, "outdated": 0, "never-fetched": 2}
    assert queries.coverage_counts(octo) == expected
    assert queries.coverage_counts(octo, "one/") == {**dict.fromkeys(expected, 0), "": 1, "block": 1}
    for show, number in expected.items():
        assert len(rows(octo, show=show)) == number
        page = client.get("/organizations/octo-org/coverage/", {"show": show}).content.decode()
        assert page.count('<td class="cell-name">') == number


def test_nothing_of_another_organization_is_counted_or_shown(octo):
    theirs = factories.organization("theirs")
    know(theirs, "one/ci.yml")
    policy = factories.policy(theirs)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("theirs")]).apply(by=SYSTEM)
    assert rows(octo) == {}
    assert set(queries.coverage_counts(octo).values()) == {0}


def test_the_search_takes_what_stands_for_anything_literally(octo):
    know(octo, "one/ci.yml", "under_score/ci.yml", "percent/100%.yml")
    assert set(rows(octo, search="under_")) == {"under_score/ci.yml"}
    assert set(rows(octo, search="0%")) == {"percent/100%.yml"}
    assert set(rows(octo, search="ONE Ci")) == {"one/ci.yml"}
    assert rows(octo, search="\\") == {}


@pytest.mark.parametrize("search", ["Ärger.yml", "ÄRGER", "ONE/Ä", "gEr"])
def test_the_search_finds_what_is_not_ascii_as_it_is_spelt(octo, search):
    know(octo, "one/Ärger.yml")
    assert set(rows(octo, search=search)) == {"one/Ärger.yml"}


def test_all_pages_together_show_each_workflow_once(octo, monkeypatch):
    monkeypatch.setattr(queries, "WORKFLOWS_PER_PAGE", 3)
    know(octo, *(f"{repository}/{number}.yml" for repository in "abc" for number in range(3)))
    seen, after = [], ""
    while True:
        page = queries.coverage_page(octo, after=after)
        seen += [f"{row.repository}/{row.workflow}" for row in page.rows]
        after = page.next_cursor
        if not after:
            break
    assert seen == sorted(set(seen))
    assert len(seen) == 9


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WzEsMl0", "W10", "é"])
def test_a_broken_cursor_leads_to_the_first_page(octo, client, cursor):
    answer = client.get("/organizations/octo-org/coverage/", {"after": cursor})
    assert answer.context["page"] == queries.coverage_page(octo)


def test_more_workflows_need_no_more_queries(octo, client):
    def counted_queries():
        with CaptureQueriesContext(connection) as captured:
            assert client.get("/organizations/octo-org/coverage/").status_code == 200
        return len(captured)

    key = factories.api_key(octo)
    fetch(key, "one/ci.yml")
    before = counted_queries()
    for number in range(10):
        fetch(key, f"one/{number}.yml", f"job-{number + 2}")
    assert counted_queries() == before


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"fetched_at": None}, Enforcement.NEVER_FETCHED),
        ({"egress_policy": ""}, Enforcement.AUDIT),
        ({"egress_policy": "audit", "calls": 3, "off_list_calls": 1}, Enforcement.AUDIT),
        ({"egress_policy": "block", "calls": 0}, Enforcement.UNCONFIRMED),
        ({"egress_policy": "block", "calls": 3, "blocked_calls": 1}, Enforcement.ENFORCING),
        ({"egress_policy": "block", "calls": 3, "off_list_calls": 1}, Enforcement.DOWNGRADED),
    ],
)
def test_a_run_tells_whether_it_was_enforced(octo, client, values, expected):
    now = timezone.now()
    run = JobRun.objects.create(
        organization=octo,
        verified_by="key",
        repository="one",
        correlation_id="a",
        first_seen_at=now,
        policy_id=1,
        policy_name="x",
        policy_version=1,
        scope_key="organization:octo-org",
        **{"fetched_at": now, **values},
    )
    assert run.enforcement == expected
    for address in ("/organizations/octo-org/runs/", f"/organizations/octo-org/runs/{run.pk}/"):
        assert f'badge-{expected.value}"' in client.get(address).content.decode()
