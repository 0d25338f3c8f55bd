"""What an earlier release compiled of less than the whole text is mended by the worker, with a history entry."""

import logging
from types import SimpleNamespace

import pytest

from policystore.accounts.actors import Actor
from policystore.documents.scopes import Scope
from policystore.operations import schedule
from policystore.policies import verification
from policystore.policies.actions import (
    attachments,
    compiling,
    endpoint_sets,
    four_eyes,
    never_allow,
    rereading,
    staged,
)
from policystore.policies.chain import LEDGERS
from policystore.policies.errors import CannotRecompile, SetInUse
from policystore.policies.models import EndpointSet, HistoryEvent, Policy, StagedVersion
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
ENDPOINTS = [f"h{number}.example.com:8443" for number in range(250)]
# As the release before read it: no further than to the list that draws more than 200 warnings.
READ = "\n  ".join(["allowed-endpoints: >", *ENDPOINTS]) + "\n"
TEXT = f"{READ}egress-policy: block\ndisable-sudo: true\nendpoint-sets: npm\n"
SET, KEPT = "\n".join(ENDPOINTS), 200


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
    four_eyes.switch_on(organization=organization, by=ANN)
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


def test_what_cannot_be_mended_is_named_and_stops_nothing(organization, npm, caplog):
    broken = misread(organization, "broken", f"{TEXT}egress: block\n")
    lacking = misread(organization, "lacking", TEXT.replace("npm", "gone"))
    misread_set(organization, text=f"{SET}\nhttps://x")
    sound = misread(organization, "sound")
    with caplog.at_level(logging.WARNING):
        rereading.Rereading()()
    assert [record.getMessage() for record in caplog.records] == [
        "Cannot read own anew: The text of the endpoint set own has errors; mend it first.",
        "Cannot read broken anew: The text of the policy broken has errors; mend it first.",
        "Cannot read lacking anew: The policy lacking includes the endpoint set gone, which is gone.",
    ]
    assert [now(policy).version for policy in (broken, lacking, sound)] == [1, 1, 2]
    # Nor does such a policy break off with a KeyError what somebody else changes.
    with pytest.raises(CannotRecompile):
        never_allow.add(organization=organization, host="h7.example.com", reason="x", by=ANN)


def test_texts_too_short_for_200_warnings_are_not_compiled(organization, monkeypatch):
    monkeypatch.setattr(rereading, "ROWS_AT_ONCE", 2)
    for number in range(5):
        factories.policy(organization, f"short-{number}")
    long = misread(organization, text=TEXT.replace("endpoint-sets: npm\n", ""))
    compiled = []
    preview = compiling.preview
    monkeypatch.setattr(
        compiling, "preview", lambda owner, rows, change: (compiled.extend(rows), preview(owner, rows, change))[1]
    )
    rereading.Rereading()()
    assert [policy.pk for policy in compiled] == [long.pk]
    assert now(long).egress_policy == "block"


def test_a_turn_ends_in_time_and_the_next_goes_on_from_there(organization, monkeypatch):
    monkeypatch.setattr(rereading, "ROWS_AT_ONCE", 1)
    # Time passes as rows are looked at.
    clock = iter(range(1000))
    monkeypatch.setattr(rereading, "time", SimpleNamespace(monotonic=lambda: next(clock) * 0.2))
    text = TEXT.replace("endpoint-sets: npm\n", "")
    made = [misread(organization, f"p{number}", text) for number in range(4)]
    job, mended = rereading.Rereading(), []
    for _ in range(3):
        job()
        mended.append(sum(now(policy).version == 2 for policy in made))
    assert mended == [2, 4, 4]
    # After the rest it begins anew, for what the release before has saved meanwhile.
    later = misread(organization, "later", text)
    job()
    assert now(later).version == 1
    clock = iter(range(10**6, 10**6 + 1000))
    for _ in range(4):
        job()
    assert now(later).version == 2


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


def test_the_worker_does_it():
    assert any(isinstance(job.work, rereading.Rereading) for job in schedule.jobs())
