"""What a staged version would have blocked: judged in the worker as calls arrive, shown on its page."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.accounts.roles import Role
from policystore.detections import actions
from policystore.policies import exceptions, never_allow
from policystore.policies import staging as staged
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.traffic import staging_results
from policystore.traffic.event_parser import ParsedEvent
from policystore.traffic.models import StagedRun
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
STAGED = "egress-policy: block\nallowed-endpoints: github.com:443 *.example.com:443\n"
AT_ONCE = timedelta(0)


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def policy(organization):
    made = factories.policy(organization, "ci")
    attachments.ModifyAttachments(policy=made, add=[Scope.for_organization("octo-org")]).apply(by=ANN)
    return made


def stage(policy, text=STAGED, *, event=None, at=None, canaries=()):
    version = staged.StageVersion(policy=policy, text=text, live_version=1, expected_event=event).apply(by=ANN, at=at)
    if canaries:
        staged.SetCanaries(policy=policy, scopes=canaries, expected_event=version.event_id).apply(by=ANN)
    return version


def run_of(policy, number, *, at=None, staged_event_id=None, **values):
    moment = at or timezone.now()
    return JobRun.objects.create(
        verified_by=values.pop("verified_by", "key"),
        organization=policy.organization, repository="r", workflow="ci.yml", run_id=str(number),
        correlation_id=str(number), policy_id=policy.pk, policy_name=policy.name, policy_version=1,
        egress_policy="block", staged_event_id=staged_event_id, first_seen_at=moment, fetched_at=moment, **values,
    )  # fmt: skip


def call(run, *hosts, dropped=False):
    seen = [
        ParsedEvent(
            kind="connection", host=host, port=443, address="192.0.2.1", client_at=None, process="curl",
            ancestry="[]", step="", outcome="blocked" if dropped else "", reason="",
            digest=f"{run.pk}-{host}-{dropped}"[-32:],
        )
        for host in hosts
    ]  # fmt: skip
    actions.observe(run=run, events=seen)


def judge():
    return staging_results.catch_up(settled_after=AT_ONCE)


def today(version):
    day = staging_results.by_day(version)[-1]
    return day.runs, day.would_block, day.canaries, day.blocked


def test_a_run_of_the_live_version_counts_once_however_its_calls_arrive(policy):
    version = stage(policy)
    within, beyond = run_of(policy, 1), run_of(policy, 2)
    call(within, "github.com", "a.example.com")
    call(beyond, "github.com")
    judge()
    assert today(version) == (2, 0, 0, 0)
    call(beyond, "ghcr.io")
    judge()
    call(beyond, "ghcr.io", "quay.io")
    judge()
    judge()
    assert today(version) == (2, 1, 0, 0)
    assert [(found.endpoint, found.runs) for found in staging_results.off_list(version)] == [
        ("ghcr.io:443", 1),
        ("quay.io:443", 1),
    ]


def test_canaries_count_by_what_was_really_blocked(policy):
    version = stage(policy)
    first, second = (run_of(policy, number, staged_event_id=version.event_id) for number in (1, 2))
    call(first, "ghcr.io", dropped=True)
    call(second, "github.com")
    judge()
    assert today(version) == (0, 0, 2, 1)
    assert not StagedRun.objects.exists()


def test_what_has_not_settled_waits_for_a_later_turn(policy):
    version = stage(policy)
    call(run_of(policy, 1), "ghcr.io")
    now = timezone.now()
    assert staging_results.catch_up(now=now) == 0
    assert staging_results.catch_up(now=now + timedelta(seconds=5)) == 0
    call(run_of(policy, 2), "ghcr.io")
    assert staging_results.catch_up(now=now + timedelta(seconds=20)) == 1
    assert staging_results.catch_up(now=now + timedelta(seconds=40)) == 1
    assert today(version) == (2, 2, 0, 0)


def test_runs_before_it_was_staged_and_of_other_policies_do_not_count(organization, policy):
    call(run_of(policy, 1, at=timezone.now() - timedelta(hours=1)), "ghcr.io")
    version = stage(policy)
    call(run_of(factories.policy(organization, "other"), 2), "ghcr.io")
    judge()
    assert today(version) == (0, 0, 0, 0)


def test_staging_again_begins_anew_and_what_was_judged_before_is_dropped(policy):
    version = stage(policy)
    call(run_of(policy, 1), "ghcr.io")
    judge()
    again = stage(policy, STAGED + "# again\n", event=version.event_id)
    call(run_of(policy, 2), "quay.io")
    judge()
    assert today(again) == (1, 1, 0, 0)
    assert staging_results.delete_old() is False
    assert StagedRun.objects.get().event_id == again.event_id


def test_an_audit_that_lists_nothing_stops_nothing(policy):
    version = stage(policy, "egress-policy: audit\n")
    call(run_of(policy, 1), "ghcr.io")
    judge()
    assert today(version) == (1, 0, 0, 0)


def test_nothing_staged_is_passed_over_in_one_step(policy, django_assert_max_num_queries):
    for number in range(5):
        call(run_of(policy, number), "ghcr.io")
    judge()
    version = stage(policy)
    judge()
    assert today(version) == (0, 0, 0, 0)
    with django_assert_max_num_queries(12):
        judge()


def test_each_day_since_is_there_with_its_own_numbers(policy):
    now = timezone.now()
    version = stage(policy, at=now - timedelta(days=3))
    for days in (2, 2, 0):
        call(run_of(policy, f"{days}-{StagedRun.objects.count()}", at=now - timedelta(days=days)), "ghcr.io")
        judge()
    assert [(day.runs, day.would_block) for day in staging_results.by_day(version)] == [(0, 0), (2, 2), (0, 0), (1, 1)]
    assert len(staging_results.by_day(version, now=now + timedelta(days=90))) == staging_results.DAYS


def test_an_exception_counts_as_allowed_for_the_runs_that_began_while_it_held_and_was_not_forbidden(policy):
    now = timezone.now()
    version = stage(policy, at=now - timedelta(hours=9))
    exceptions.AddException(
        policy=policy, endpoint="ghcr.io:443", reason="x", expires_at=now - timedelta(hours=2)
    ).apply(by=ANN, at=now - timedelta(hours=8))
    never_allow.add(organization=policy.organization, host="ghcr.io", reason="x", by=ANN, at=now - timedelta(hours=4))
    for number, hours in enumerate((8.5, 7, 5, 3, 1)):
        call(run_of(policy, number, at=now - timedelta(hours=hours)), "ghcr.io")
    judge()
    passed = StagedRun.objects.filter(event_id=version.event_id, off_list_count=0).values_list("job_run__run_id")
    assert sorted(passed) == [("1",), ("2",)]


# The page


def browser(organization):
    client = Client()
    client.force_login(factories.member(organization, Role.AUDITOR), backend="policystore.accounts.access.RoleBackend")
    return client


def test_the_page_tells_how_many_runs_and_which_endpoints(organization, policy):
    version = stage(policy)
    for number in range(3):
        call(run_of(policy, number), "github.com", *(["ghcr.io"] if number else []))
    call(run_of(policy, 9, staged_event_id=version.event_id), "ghcr.io", dropped=True)
    judge()
    client, address = browser(organization), reverse("staged-counts", args=["octo-org", policy.pk])
    page = client.get(address).content.decode()
    assert "<strong>2</strong> of 3 job runs" in page
    assert "Of 1 canary job run, <strong>1</strong> was blocked" in page
    assert "<code>ghcr.io:443</code>" in page
    assert "not on the live list either" in page
    part = client.get(address, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part
    assert "<strong>2</strong> of 3 job runs" in part
    assert address in client.get(reverse("policies:staged", args=["octo-org", policy.pk])).content.decode()


def test_before_the_first_call_the_page_says_that_nothing_is_known(organization, policy):
    stage(policy)
    page = browser(organization).get(reverse("staged-counts", args=["octo-org", policy.pk])).content.decode()
    assert "No job that gets ci has reported a call" in page


def test_without_a_staged_version_there_are_no_counts(organization, policy):
    answer = browser(organization).get(reverse("staged-counts", args=["octo-org", policy.pk]))
    assert answer.status_code == 404


def test_the_page_asks_as_many_queries_for_many_runs_as_for_few(organization, policy, django_assert_max_num_queries):
    stage(policy)
    client, address = browser(organization), reverse("staged-counts", args=["octo-org", policy.pk])
    counted = []
    for numbers in (range(2), range(2, 40)):
        for number in numbers:
            call(run_of(policy, number), "ghcr.io", f"host-{number}.example")
        judge()
        with django_assert_max_num_queries(20) as queries:
            client.get(address)
        counted.append(len(queries))
    assert counted[0] == counted[1]


def test_a_run_whose_calls_are_moved_meanwhile_is_left_to_the_row_that_has_them(policy, monkeypatch):
    version = stage(policy)
    call(moved := run_of(policy, 1), "evil.example")
    call(run_of(policy, 2), "evil.example")
    judge_runs = staging_results._judge_runs

    def move_and_judge(judges, ids):
        moved.endpoints.all().delete()
        judge_runs(judges, ids)

    monkeypatch.setattr(staging_results, "_judge_runs", move_and_judge)
    assert judge() == 2
    assert today(version) == (1, 1, 0, 0)


def test_a_staged_reply_that_was_broken_in_the_database_keeps_no_other_from_being_judged(policy, organization):
    broken = stage(policy)
    other = factories.policy(organization, "other")
    version = stage(other)
    type(broken).objects.filter(pk=broken.pk).update(reply='{"policy_name":"ci", broken}')
    call(run_of(policy, 1), "evil.example")
    call(run_of(other, 2), "evil.example")
    judge()
    assert today(version) == (1, 1, 0, 0)
    assert today(broken) == (1, 0, 0, 0)
    page = browser(organization).get(reverse("staged-counts", args=["octo-org", policy.pk]))
    assert page.status_code == 200
