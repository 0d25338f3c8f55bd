"""What an earlier release compiled of less than the whole text is mended by the worker, with a history entry."""

import json
import logging
import re
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from policystore.accounts.actors import Actor
from policystore.accounts.models import Role
from policystore.documents.scopes import Scope
from policystore.operations import schedule
from policystore.policies import verification
from policystore.policies.actions import (
    attachments,
    compiling,
    endpoint_sets,
    exceptions,
    never_allow,
    policies,
    rereading,
    staged,
)
from policystore.policies.chain import LEDGERS
from policystore.policies.errors import CannotRecompile, SetInUse
from policystore.policies.models import (
    EndpointSet,
    HistoryEvent,
    NeverAllowHost,
    Policy,
    PolicyException,
    StagedVersion,
)
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
ENDPOINTS = [f"h{number}.example.com:8443" for number in range(250)]
# As the release before read it: no further than to the list that draws more than 200 warnings.
READ = "\n  ".join(["allowed-endpoints: >", *ENDPOINTS]) + "\n"
TEXT = f"{READ}egress-policy: block\ndisable-sudo: true\nendpoint-sets: npm\n"
SET, KEPT = "\n".join(ENDPOINTS), 200
ALONE = TEXT.replace("endpoint-sets: npm\n", "")
BROKEN, LACKING = f"{TEXT}egress: block\n", TEXT.replace("npm", "gone")


class Clock:
    """A monotonic clock that goes on by a step whenever somebody looks at it."""

    now, step = 1e6, 0.0

    def monotonic(self):
        self.now += self.step
        return self.now

    def rest(self):
        self.now += rereading.REST_SECONDS


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(rereading, "time", clock)
    return clock


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def npm(organization):
    return factories.endpoint_set(organization, "npm", "registry.octo1.org\n")


def misread(organization, name="ci", text=TEXT):
    """A policy as the release before has left it."""
    policy = factories.policy(organization, name, READ)
    Policy.objects.filter(pk=policy.pk).update(text=text)
    return policy


def misread_set(organization, text=SET):
    made = factories.endpoint_set(organization, "own", "\n".join(ENDPOINTS[:KEPT]))
    EndpointSet.objects.filter(pk=made.pk).update(text=text)
    return made


def events(kind, subject):
    return HistoryEvent.objects.filter(kind=kind, subject_id=subject.pk)


def now(row):
    return type(row).objects.get(pk=row.pk)


def test_a_blocking_policy_that_was_served_as_audit_blocks_as_its_next_version(organization, npm):
    policy = misread(organization)
    factories.four_eyes_on(organization, by=ANN)
    assert now(policy).egress_policy == "audit"
    rereading.Rereading()()
    mended = now(policy)
    assert (mended.version, mended.egress_policy, mended.changed_by) == (2, "block", "Policy Store")
    assert mended.listed_endpoints == [*ENDPOINTS, "registry.octo1.org:443"]
    assert '"disable_sudo":true' in mended.reply
    [event] = events("updated", policy)
    assert (event.version, event.actor_kind, event.reason) == (2, "system", rereading.REASON)
    assert (event.text_before, event.text_after, event.reply_after) == (TEXT, TEXT, mended.reply)
    assert event.details["endpoints_added"] == ["registry.octo1.org:443"]
    assert not verification.verify(LEDGERS[0], "octo-org").misfit
    # From now on it follows the set that it includes.
    by = Actor("ann", approved_by="ben")
    endpoint_sets.update(endpoint_set=npm, name="npm", description="", text="yarn.io\n", expected_version=1, by=by)
    assert now(policy).listed_endpoints[-1] == "yarn.io:443"


def test_a_policy_that_was_recompiled_since_is_only_told_which_sets_it_includes(organization, npm):
    policy = misread(organization)
    never_allow.add(organization=organization, host="h7.example.com", reason="x", by=ANN)
    assert now(policy).version == 2
    rereading.Rereading()()
    assert (now(policy).version, now(policy).set_uses.get().endpoint_set) == (2, npm)


def test_a_set_gets_the_endpoints_back_that_it_lost_and_its_policies_with_it(organization):
    own = misread_set(organization)
    policy = factories.policy(organization, "ci", "egress-policy: block\nendpoint-sets: own\n")
    rereading.Rereading()()
    mended = now(own)
    assert (mended.version, mended.endpoints, mended.endpoint_count) == (2, ENDPOINTS, len(ENDPOINTS))
    assert (now(policy).version, now(policy).listed_endpoints) == (2, ENDPOINTS)
    [event] = events("set_updated", own)
    assert (event.version, event.reason, event.actor_kind) == (2, rereading.REASON, "system")
    [event] = events("updated", policy)
    assert event.details["cause"] == {"kind": "endpoint_set", "id": own.pk, "name": "own", "version": 2}


def test_canaries_get_what_is_staged_in_whole(organization, npm):
    policy = factories.policy(organization)
    attachments.modify(policy=policy, add=[Scope.for_organization("octo-org")], by=ANN)
    made = staged.stage(policy=policy, text=READ, live_version=1, expected_event=None, by=ANN)
    StagedVersion.objects.filter(pk=made.pk).update(text=TEXT)
    rereading.Rereading()()
    mended = now(made)
    assert (mended.egress_policy, mended.endpoint_count) == ("block", len(ENDPOINTS) + 1)
    event = events("staged", policy).latest("pk")
    assert (event.pk, event.reason) == (mended.event_id, rereading.REASON)
    assert event.details["reply"] == mended.reply


def test_nothing_is_mended_twice_by_whichever_worker(organization, npm):
    misread(organization)
    misread_set(organization)
    rereading.Rereading()()
    count = HistoryEvent.objects.count()
    rereading.Rereading()()
    assert HistoryEvent.objects.count() == count


def misread_staged(policy, text=TEXT):
    made = staged.stage(policy=policy, text=READ, live_version=policy.version, expected_event=None, by=ANN)
    StagedVersion.objects.filter(pk=made.pk).update(text=text)
    return made


def forbid(organization, host):
    return never_allow.add(organization=organization, host=host, reason="x", by=ANN)


def test_what_cannot_be_mended_is_named_once_and_stops_nothing(organization, npm, caplog, clock):
    broken = misread(organization, "broken", BROKEN)
    lacking = misread(organization, "lacking", LACKING)
    misread_set(organization, text=f"{SET}\nhttps://x")
    misread_staged(factories.policy(organization, "half"), LACKING)
    whole = misread_staged(factories.policy(organization, "whole"))
    sound = misread(organization, "sound")
    job = rereading.Rereading()
    with caplog.at_level(logging.WARNING):
        job()
        clock.rest()
        job()
    gone = "includes the endpoint set gone, which is gone: take it out, or create the set again."
    marked = "has errors: open it, mend the lines that are marked, save it."
    assert [record.getMessage() for record in caplog.records] == [
        f"Cannot read the endpoint set own of octo-org anew: The text of the endpoint set own {marked}",
        f"Cannot read the policy broken of octo-org anew: The text of the policy broken {marked}",
        f"Cannot read the policy lacking of octo-org anew: The policy lacking {gone}",
        f"Cannot read the staged version of half in octo-org anew: The staged version of half {gone}",
    ]
    assert [now(policy).version for policy in (broken, lacking, sound)] == [1, 1, 2]
    assert now(whole).egress_policy == "block"
    # It is tried again, and mended once the set is there.
    factories.endpoint_set(organization, "gone", "yarn.io\n")
    clock.rest()
    job()
    assert now(lacking).listed_endpoints[-1] == "yarn.io:443"


def test_no_failure_stops_what_comes_after_it(organization, npm, monkeypatch, caplog):
    made = [misread(organization, f"p{number}") for number in range(3)]
    read_anew = policies.read_anew

    def fail_first(*, policy, **values):
        if policy.pk == made[0].pk:
            raise KeyError("x")
        return read_anew(policy=policy, **values)

    monkeypatch.setattr(policies, "read_anew", fail_first)
    rereading.Rereading()()
    assert [now(policy).version for policy in made] == [1, 2, 2]
    assert "Cannot read the policy p0 of octo-org anew" in caplog.text


def test_a_database_that_is_busy_ends_the_turn_and_nothing_is_forgotten(organization, npm, monkeypatch, clock):
    made = [misread(organization, f"p{number}") for number in range(2)]

    def be_busy(**values):
        raise OperationalError("database is locked")

    job = rereading.Rereading()
    with monkeypatch.context() as busy:
        busy.setattr(policies, "read_anew", be_busy)
        with pytest.raises(OperationalError):
            job()
    job()
    assert [now(policy).version for policy in made] == [1, 2]
    clock.rest()
    job()
    assert [now(policy).version for policy in made] == [2, 2]


@pytest.mark.parametrize("text", [BROKEN, LACKING])
def test_a_host_is_never_allowed_whatever_cannot_be_read(organization, npm, client, text):
    client.force_login(factories.member(organization, Role.OWNER))
    policy = misread(organization, text=text)
    misread_staged(policy, text)
    sound = factories.policy(organization, "sound", "egress-policy: block\nallowed-endpoints: h7.example.com:8443\n")
    page = "/organizations/octo-org/settings/never-allow-hosts/"
    asked = {"host": "h7.example.com", "reason": "x"}
    review = client.post(page, asked)
    assert ">ci<" in review.content.decode()
    agreed = re.search(r'name="agreed" value="([^"]*)"', review.content.decode())[1]
    assert client.post(page, {**asked, "agreed": agreed, "confirm": "yes"}).status_code == 302
    without = [endpoint for endpoint in ENDPOINTS if endpoint != "h7.example.com:8443"]
    changed = now(policy)
    assert (changed.version, changed.listed_endpoints, changed.endpoint_count) == (2, without, len(without))
    assert (changed.egress_policy, changed.text) == ("audit", text)
    assert json.loads(policy.staged.reply)["allowed_endpoints"] == without
    assert now(sound).listed_endpoints == []
    # What can be read gets it back; of the other it is not known what the text says.
    [entry] = NeverAllowHost.objects.all()
    never_allow.remove(entry=entry, by=ANN)
    assert (now(policy).listed_endpoints, now(sound).endpoint_count) == (without, 1)


@pytest.mark.parametrize("text", [BROKEN, LACKING])
def test_a_set_is_mended_with_the_policies_that_can_be_read(organization, text):
    own = misread_set(organization)
    including = "egress-policy: block\nendpoint-sets: own\n"
    broken, half = (factories.policy(organization, name, including) for name in ("broken", "half"))
    sound = factories.policy(organization, "sound", including)
    misread_staged(half, text.replace("npm", "own"))
    Policy.objects.filter(pk=broken.pk).update(text=text)
    rereading.Rereading()()
    assert (now(own).endpoint_count, now(sound).endpoint_count) == (len(ENDPOINTS), len(ENDPOINTS))
    assert now(broken).version == 1
    # Who changes the set is told what stands in the way.
    with pytest.raises(CannotRecompile, match=r"The (text of the )?policy broken"):
        endpoint_sets.update(endpoint_set=own, name="own", description="", text="yarn.io\n", expected_version=2, by=ANN)


def test_exceptions_run_out_beside_a_policy_that_cannot_be_read(organization, npm, monkeypatch):
    lacking, sound = misread(organization, "lacking", LACKING), factories.policy(organization, "sound")
    hour = timedelta(hours=1)
    at = timezone.now() - 2 * hour
    for policy in (lacking, sound):
        exceptions.add(policy=policy, endpoint="x.dev:443", reason="x", expires_at=at + hour, by=ANN, at=at)
    exceptions.tell_expired()
    assert not PolicyException.objects.filter(ended_at__isnull=True).exists()
    # Nor does any other failure of one policy stop those of others.
    for policy in (lacking, sound):
        exceptions.add(policy=policy, endpoint="x.dev:443", reason="x", expires_at=at + hour, by=ANN, at=at)
    follow = compiling.follow_exceptions

    def fail_for_one(policy):
        follow(policy) if policy.pk == sound.pk else {}["x"]

    monkeypatch.setattr(compiling, "follow_exceptions", fail_for_one)
    exceptions.tell_expired()
    assert PolicyException.objects.get(ended_at__isnull=True).policy == lacking


def test_a_set_that_only_a_text_names_can_neither_be_deleted_nor_renamed(organization, npm):
    policy = misread(organization)
    factories.policy(organization, "other", "egress-policy: audit\nallowed-endpoints: npm.dev\n# endpoint-sets: npm\n")
    with pytest.raises(SetInUse) as refused:
        endpoint_sets.delete(endpoint_set=npm, by=ANN)
    assert refused.value.names == (policy.name,)
    with pytest.raises(SetInUse):
        endpoint_sets.update(endpoint_set=npm, name="yarn", description="", text=npm.text, expected_version=1, by=ANN)
    rereading.Rereading()()
    with pytest.raises(SetInUse) as refused:
        endpoint_sets.delete(endpoint_set=npm, by=ANN)
    assert refused.value.names == (policy.name,)


def test_texts_too_short_for_200_warnings_are_not_compiled(organization, monkeypatch):
    for number in range(5):
        factories.policy(organization, f"short-{number}")
    long = misread(organization, text=ALONE)
    compiled, is_stale = [], compiling.is_stale
    monkeypatch.setattr(compiling, "is_stale", lambda policy: compiled.append(policy) or is_stale(policy))
    rereading.Rereading()()
    assert compiled == [long]
    assert now(long).egress_policy == "block"


def test_nothing_is_told_of_what_another_worker_has_mended(organization, monkeypatch, caplog):
    policy = misread(organization, text=ALONE)
    assert policies.read_anew(policy=policy, by=ANN, reason="x")
    monkeypatch.setattr(compiling, "is_stale", lambda policy: True)
    with caplog.at_level(logging.INFO):
        rereading.Rereading()()
    assert "anew" not in caplog.text


def test_a_turn_ends_in_time_and_the_next_goes_on_from_there(organization, clock):
    clock.step = 0.2
    made = [misread(organization, f"p{number}", ALONE) for number in range(5)]
    job, mended = rereading.Rereading(), []
    for _ in range(4):
        job()
        mended.append(sum(now(policy).version == 2 for policy in made))
    assert mended == [2, 4, 5, 5]


def test_after_a_rest_only_what_was_changed_since_is_looked_at(organization, clock, monkeypatch):
    monkeypatch.setattr(rereading, "OVERLAP", timedelta(0))
    seen, mend = [], rereading._row
    monkeypatch.setattr(rereading, "_row", lambda kind, pk: seen.append(kind.subject) or mend(kind, pk))
    own = misread_set(organization)
    first, second = (misread(organization, name, ALONE) for name in ("first", "second"))
    job = rereading.Rereading()
    job()
    assert len(seen) == 3
    # What was mended meanwhile has changed.
    for looked_at in (6, 0):
        seen.clear()
        clock.rest()
        job()
        assert len(seen) <= looked_at
    # The release before saves one, and one more.
    saved = policies.update(policy=second, name="new", description="", text=READ, expected_version=2, by=ANN)
    Policy.objects.filter(pk=saved.pk).update(text=ALONE)
    third = misread(organization, "third", ALONE)
    job()
    assert now(third).version == 1
    clock.rest()
    job()
    assert [now(policy).version for policy in (first, saved, third)] == [2, 4, 2]
    assert set(seen) == {HistoryEvent.SubjectType.POLICY}
    assert now(own).version == 2


def test_what_cannot_be_read_is_found_within_a_time(organization, npm, clock):
    misread(organization, "broken", BROKEN)
    misread_staged(factories.policy(organization, "half"), LACKING)
    misread(organization, "sound")
    found, finished = rereading.unreadable(seconds=5)
    assert [told.partition(":")[0] for told in found] == [
        "policy broken of octo-org",
        "staged version of half in octo-org",
    ]
    assert finished
    clock.step = 10
    assert rereading.unreadable(seconds=5) == ([], False)


def test_the_worker_does_it():
    assert any(isinstance(job.work, rereading.Rereading) for job in schedule.jobs())


@pytest.mark.parametrize("text", [BROKEN, LACKING])
def test_a_policy_whose_staged_version_cannot_be_read_can_be_renamed(organization, text):
    policy = factories.policy(organization, "half")
    misread_staged(policy, text)
    before = json.loads(policy.staged.reply)
    policies.update(policy=policy, name="new", description="", text=policy.text, expected_version=1, by=ANN)
    policy.staged.refresh_from_db()
    assert json.loads(policy.staged.reply) == {**before, "policy_name": "new"}
