"""Exceptions: endpoints that a policy allows for a time, what runners get of them, and what the store tells."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Actor, Role
from policystore.audit_log import history
from policystore.audit_log.models import HistoryEvent
from policystore.integrations.models import OutboxMessage
from policystore.policies import break_glass, exceptions, never_allow
from policystore.policies import staging as staged
from policystore.policies.approvals import requests as change_requests
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.errors import InvalidException
from policystore.policies.models import ChangeRequest, PolicyException
from policystore.policies.pages import get_or_404
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import handler, query
from policystore.runners.models import JobRun
from policystore.traffic.verdicts import verdicts_for
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

ANN, EXTRA = Actor("ann"), "files.example.com:443"
STORE = "/organizations/octo-org/policy-store/"
TEXT = "egress-policy: block\nallowed-endpoints: github.com:443\nendpoint-sets: npm\n"
LISTED = ["github.com:443", "registry.octo1.org:443", "registry.yarnpkg.com:443"]
SCOPE = Scope.for_organization("octo-org")


@pytest.fixture
def octo():
    return factories.organization("octo-org")


@pytest.fixture
def policy(octo):
    factories.endpoint_set(octo)
    made = factories.policy(octo, "ci", TEXT)
    attachments.ModifyAttachments(policy=made, add=[SCOPE]).apply(by=SYSTEM)
    return made


@pytest.fixture
def client(octo):
    client = Client()
    person = factories.member(octo, Role.SECURITY_ADMIN, "ann")
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def add(policy, endpoint=EXTRA, *, days=1, ago=timedelta(0), by=ANN):
    begun = timezone.now() - ago
    ends = begun + timedelta(days=days)
    return exceptions.AddException(policy=policy, endpoint=endpoint, reason="A vendor moves", expires_at=ends).apply(
        by=by, at=begun
    )


def served(policy, at=None):
    return query.policy_for_job("octo-org", "hello", "ci.yml", at=at)


def endpoints(policy, at=None):
    return (
        handler.reply_of(served(policy, at))
        .body.decode()
        .partition("[")[2]
        .partition("]")[0]
        .replace('"', "")
        .split(",")
    )


def kinds():
    return [event.kind for event in HistoryEvent.objects.filter(kind__startswith="exception").order_by("pk")]


def post(client, policy, **values):
    ends = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}"
    values = {"endpoint": EXTRA, "expires_at": ends, "reason": "A vendor moves", **values}
    return client.post(f"{STORE}{policy.pk}/exceptions/", values)


def test_a_runner_gets_it_behind_the_policys_own_list_and_sets_until_its_moment_without_a_worker(octo, policy):
    added = add(policy)
    assert endpoints(policy) == [*LISTED, EXTRA]
    assert endpoints(policy, added.expires_at - timedelta(microseconds=1)) == [*LISTED, EXTRA]
    assert endpoints(policy, added.expires_at) == LISTED
    assert kinds() == ["exception_added"]


@pytest.mark.parametrize("asked", [(), ("later",)])
def test_the_fetch_serves_it_and_a_remembered_answer_does_not_outlive_it(octo, policy, monkeypatch, asked):
    headers = {"authorization": f"vm-api-key {factories.api_key(octo)}"}
    target = "/v1/github/octo-org/hello/actions/policies/workflow-policy?workflow=ci.yml"
    added = add(policy)
    assert ask("GET", target, headers).json()["allowed_endpoints"] == [*LISTED, EXTRA]

    def away(*_, **__):
        raise OperationalError("away")

    monkeypatch.setattr(handler.database, "first_row", away)
    later = added.expires_at if asked else added.expires_at - timedelta(seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    expected = LISTED if asked else [*LISTED, EXTRA]
    assert ask("GET", target, headers).json()["allowed_endpoints"] == expected


def test_the_worker_tells_once_that_it_has_expired_and_a_failure_before_loses_nothing(octo, policy, monkeypatch):
    factories.integration(octo, chosen=["policy.exception"])
    added = add(policy, ago=timedelta(days=2))
    assert endpoints(policy) == LISTED
    with monkeypatch.context() as patch:
        patch.setattr(history, "record_policy", lambda *_, **__: 1 / 0)
        exceptions.record_expired()
    assert PolicyException.objects.filter(ended_at=None).exists()
    assert [exceptions.record_expired() for _ in range(2)] == [1, 0]
    added.refresh_from_db()
    assert (added.ended_at, added.ended_by) == (added.expires_at, SYSTEM.name)
    assert kinds() == ["exception_added", "exception_expired"]
    assert [message.kind for message in OutboxMessage.objects.all()] == ["policy.exception"] * 2
    policy.refresh_from_db()
    assert policy.open_exceptions == ""


def test_it_ends_at_once_when_somebody_ends_it_and_stays_through_edits_before(octo, policy, client):
    added = add(policy)
    policy.refresh_from_db()
    policies.UpdatePolicy(policy=policy, name="ci", description="", text=f"{TEXT}# x\n", expected_version=1).apply(
        by=ANN
    )
    assert endpoints(policy) == [*LISTED, EXTRA]
    for _ in range(2):
        assert client.post(f"{STORE}{policy.pk}/exceptions/{added.pk}/end/").status_code == 302
    assert endpoints(policy) == LISTED
    assert kinds() == ["exception_added", "exception_ended"]


def test_canaries_and_jobs_under_a_broken_glass_get_it_too(octo, policy):
    added = add(policy, days=2)
    version = staged.StageVersion(
        policy=policy, text="egress-policy: block\n", live_version=1, expected_event=None
    ).apply(by=ANN)
    staged.SetCanaries(policy=policy, scopes=[SCOPE], expected_event=version.event_id).apply(by=ANN)
    glass = break_glass.start(organization=octo, scope=SCOPE, hours=1, reason="x", by=ANN)
    assert endpoints(policy) == [EXTRA]
    found = served(policy)
    assert found.egress_policy == "audit"
    ends = (glass.ends_at, added.expires_at)
    assert [found.stored.at(moment - timedelta(microseconds=1))[0] for moment in ends] == ["audit", "block"]
    later = [found.stored.at(moment) for moment in ends]
    assert [(mode, EXTRA in reply) for mode, reply in later] == [("block", True), ("block", False)]


def test_a_never_allowed_host_is_refused_and_one_forbidden_later_is_served_no_more(octo, policy, client):
    add(policy)
    entry, _ = never_allow.add(organization=octo, host="files.example.com", reason="It leaks", by=ANN)
    assert endpoints(policy) == LISTED
    assert "Never allowed" in client.get(f"{STORE}{policy.pk}/").content.decode()
    answer = post(client, policy, endpoint="FILES.example.com:8443")
    assert answer.status_code == 422
    assert "It leaks" in answer.content.decode()
    never_allow.RemoveNeverAllow(entry=entry).apply(by=ANN)
    assert endpoints(policy) == [*LISTED, EXTRA]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"endpoint": "github.com:443"}, "already lists github.com:443"),
        ({"endpoint": "a.example:443 b.example:443"}, "Enter a single endpoint"),
        ({"endpoint": "no/host"}, "errorlist"),
        ({"reason": " "}, "errorlist"),
        ({"owner": "stranger"}, "“stranger” is not a member of octo-org. Enter the login of a member."),
        ({"expires_at": "soon"}, "Enter a day such as"),
        ({"expires_at": "2020-01-01T00:00"}, "in the future"),
        ({"expires_at": "2999-01-01T00:00"}, "at most 366 days"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason_beside_what_was_written(policy, client, values, told):
    answer = post(client, policy, **values)
    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert not PolicyException.objects.exists()


def test_the_same_endpoint_has_one_at_a_time_and_can_be_added_again_once_it_ran_out(policy):
    add(policy, ago=timedelta(days=2))
    add(policy)
    assert kinds() == ["exception_added", "exception_expired", "exception_added"]
    with pytest.raises(InvalidException, match="already has an exception"):
        add(policy)


def test_the_page_and_the_list_show_it_with_owner_reason_and_end(policy, client):
    assert post(client, policy).status_code == 302
    page = client.get(f"{STORE}{policy.pk}/").content.decode()
    for text in (EXTRA, "A vendor moves", "End now", "1 exception<"):
        assert text in page
    assert "1 exception<" in client.get(STORE).content.decode()
    shown = client.get(f"{STORE}{policy.pk}/history/").content.decode()
    assert "Exception Added" in shown


def test_adding_to_a_policy_that_blocks_waits_for_a_second_person_and_ending_never(octo, policy, client):
    factories.four_eyes_on(octo)
    assert "change-requests" in post(client, policy)["Location"]
    assert endpoints(policy) == LISTED
    waiting = ChangeRequest.objects.get()
    assert EXTRA in client.get(f"{STORE}change-requests/{waiting.pk}/").content.decode()
    change_requests.approve(request=waiting, by=Actor("jonas"))
    assert endpoints(policy) == [*LISTED, EXTRA]
    added = PolicyException.objects.get()
    assert added.owner == "ann"
    client.post(f"{STORE}{policy.pk}/exceptions/{added.pk}/end/")
    assert endpoints(policy) == LISTED


def test_a_job_served_while_its_host_was_forbidden_had_no_exception_and_one_served_before_had(octo, policy):
    added = add(policy, ago=timedelta(hours=3))
    before, forbidden_at, within, taken_off, after = (added.added_at + timedelta(minutes=20 * n) for n in range(1, 6))
    entry, _ = never_allow.add(organization=octo, host="*.example.com", reason="x", by=ANN, at=forbidden_at)
    never_allow.RemoveNeverAllow(entry=entry).apply(by=ANN, at=taken_off)
    for served_at, allowed in ((before, True), (forbidden_at, False), (within, False), (after, True)):
        run = JobRun(verified_by="key", organization=octo, policy_id=policy.pk, policy_version=1, egress_policy="block")
        run.first_seen_at = run.fetched_at = served_at
        assert (verdicts_for(run).allowed.verdict("files.example.com", 443) == "allowed") is allowed


def test_the_page_of_a_staged_version_shows_what_canaries_get_with_it(policy, client):
    add(policy)
    staged.StageVersion(policy=policy, text="egress-policy: block\n", live_version=1, expected_event=None).apply(by=ANN)
    assert f"&quot;{EXTRA}&quot;" in client.get(f"{STORE}{policy.pk}/staged/").content.decode()


def test_it_is_owned_by_the_member_who_is_named_or_by_who_adds_it(octo, policy, client):
    factories.member(octo, Role.AUDITOR, "zoe")
    form = client.get(f"{STORE}{policy.pk}/").content.decode().partition('name="owner"')[2]
    assert 'value="ann"' in form.partition(">")[0]
    assert '<option value="zoe">' in form
    post(client, policy, owner="@Zoe")
    post(client, policy, endpoint="other.example:443", owner="")
    owners = dict(PolicyException.objects.values_list("endpoint", "owner"))
    assert owners == {EXTRA: "zoe", "other.example:443": "ann"}
    assert "owner zoe" in client.get(f"{STORE}{policy.pk}/").content.decode()
    assert "zoe owns the exception" in client.get(f"{STORE}{policy.pk}/history/").content.decode()


def test_a_change_request_shows_and_keeps_the_owner(octo, policy, client):
    factories.member(octo, Role.AUDITOR, "zoe")
    factories.four_eyes_on(octo)
    post(client, policy, owner="zoe")
    waiting = ChangeRequest.objects.get()
    assert "<dd>zoe</dd>" in client.get(f"{STORE}change-requests/{waiting.pk}/").content.decode()
    change_requests.approve(request=waiting, by=Actor("jonas"))
    assert PolicyException.objects.get().owner == "zoe"


def found_by(client, word):
    return f">{'ci'}</a>" in client.get(f"{STORE}?q={word}").content.decode()


def test_the_list_finds_a_policy_by_an_excepted_endpoint_as_long_as_it_holds(octo, policy, client):
    assert not found_by(client, "files.example")
    added = add(policy)
    assert found_by(client, "files.example")
    policies.UpdatePolicy(policy=policy, name="ci", description="", text=f"{TEXT}# x\n", expected_version=1).apply(
        by=ANN
    )
    assert found_by(client, "files.example")
    exceptions.end(exception=added, by=ANN)
    assert not found_by(client, "files.example")
    assert found_by(client, "registry.yarnpkg")


def test_calls_are_judged_by_what_held_when_the_job_was_served(octo, policy):
    added = add(policy)
    for served_at, allowed in ((added.added_at, True), (added.expires_at, False)):
        run = JobRun(verified_by="key", organization=octo, policy_id=policy.pk, policy_version=1, egress_policy="block")
        run.first_seen_at = served_at
        assert (verdicts_for(run).allowed.verdict("files.example.com", 443) == "allowed") is allowed


@pytest.mark.parametrize("name", ["add_exception", "staged", "promote", "discard"])
def test_a_page_of_a_policy_that_is_deleted_at_the_same_moment_leads_to_the_list(client, policy, monkeypatch, name):
    version = staged.StageVersion(policy=policy, text=TEXT, live_version=1, expected_event=None).apply(by=ANN)

    def get_and_delete(*asked):
        found = get_or_404.get_policy(*asked)
        policies.DeletePolicy(policy=found).apply(by=ANN)
        return found

    for module in ("policies", "staged"):
        monkeypatch.setattr(f"policystore.policies.pages.{module}.get_policy", get_and_delete)
    tomorrow = f"{timezone.now() + timedelta(days=1):%Y-%m-%d}"
    values = {"endpoint": EXTRA, "expires_at": tomorrow, "reason": "x", "text": TEXT, "event": version.event_id}
    answer = client.post(reverse(f"policies:{name}", args=["octo-org", policy.pk]), values, follow=True)
    assert answer.redirect_chain == [(reverse("policies:list", args=["octo-org"]), 302)]
    assert "The policy ci was deleted in the meantime." in answer.content.decode()
