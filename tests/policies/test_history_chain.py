"""The chain of events: what is sealed, and that nothing in it can be changed, removed, put in or moved unnoticed."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from policystore.accounts import members
from policystore.accounts.models import SYSTEM, AccountEvent, Actor
from policystore.audit_log import event_types, hash_chain, history
from policystore.audit_log.models import HistoryEvent, HistoryHead
from policystore.operations import worker
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db
MATCHES = "What runners get is what the history recorded.\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def events(organization):
    """Six sealed events: a policy that is created, updated three times, attached and detached."""
    policy = factories.policy(organization, "ci")
    for version in (1, 2, 3):
        policies.UpdatePolicy(
            policy=policy,
            name="ci",
            description=f"the {version}th",
            text=f"egress-policy: audit # {version}\n",
            expected_version=version,
        ).apply(by=Actor("maria"))
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=Actor("maria"))
    attachments.DetachPolicy(policy=policy).apply(by=Actor("maria"))
    return list(HistoryEvent.objects.order_by("pk"))


def rows(**values):
    """History events past everything that guards them, as somebody with the database's password sees them."""
    return QuerySet(model=HistoryEvent).filter(**values)


def told(*arguments):
    """What the command says, and its exit code."""
    out = StringIO()
    try:
        call_command("verify_history", *arguments, stdout=out)
    except CommandError as error:
        return f"{out.getvalue()}{error}", error.returncode
    return out.getvalue(), 0


def resealed(event, **values):
    """The event with other values, and a digest that fits them and the events before it."""
    before = HistoryEvent.objects.filter(sequence=event.sequence - 1).first()
    place = hash_chain.Place(before.sequence, before.digest) if before else hash_chain.BEGINNING
    rows(pk=event.pk).update(**values)
    changed = HistoryEvent.objects.get(pk=event.pk)
    rows(pk=event.pk).update(digest=hash_chain.following(hash_chain.HISTORY, place, changed).digest)
    return HistoryEvent.objects.get(pk=event.pk)


def test_every_event_is_sealed_in_the_transaction_of_its_change(events):
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    assert len({event.digest for event in events}) == 6
    head = HistoryHead.objects.get(ledger="history")
    assert (head.owner, head.sequence, head.digest) == ("octo-org", 6, events[-1].digest)
    assert told() == ("octo-org: 6 history events verified.\nocto-org: 0 account events verified.\n" + MATCHES, 0)


def test_each_organization_has_a_chain_of_its_own(events):
    factories.policy(factories.organization("other"))
    assert HistoryEvent.objects.get(owner="other").sequence == 1
    rows(owner="other").update(actor="mallory")
    said, code = told()
    assert code == 1
    assert "octo-org: 6 history events verified." in said
    assert told("--organization", "Octo-Org")[1] == 0
    assert told("--organization", "other")[1] == 1


def test_an_organization_without_history_is_refused(events):
    assert told("--organization", "nowhere") == ("There is no history of an organization named nowhere.", 1)


CHANGES = {
    "actor": "mallory",
    "actor_kind": "system",
    "kind": "attached",
    "subject_name": "c1",
    "subject_id": 4711,
    "subject_type": "organization",
    "version": 9,
    "at": datetime(2020, 1, 1, tzinfo=UTC),
    "name_before": "x",
    "description_before": "x",
    "description_after": "x",
    "text_before": "x",
    "text_after": "x",
    "reply_after": "x",
    "scopes_added": ["organization:octo-org"],
    "scopes_removed": ["organization:octo-org"],
    "reason": "x",
    "details": {"restores": 1},
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_value_is_named(events, column):
    rows(sequence=3).update(**{column: CHANGES[column]})
    said, code = told()
    assert code == 1
    assert f"octo-org: history event 3 (id {events[2].pk}: " in said
    assert "is not what was sealed there" in said


def test_every_column_is_sealed():
    columns = {field.attname for field in HistoryEvent._meta.concrete_fields}
    assert columns - {"id", "owner", "sequence", "digest"} == set(CHANGES)


def test_an_event_that_was_given_to_another_organization_is_missed(events):
    rows(sequence=3).update(owner="other")
    assert "octo-org: history event 3 is missing" in told()[0]


def test_a_change_with_a_digest_that_fits_it_breaks_at_the_next_event(events):
    resealed(events[2], actor="mallory")
    said, code = told()
    assert code == 1
    assert f"history event 4 (id {events[3].pk}: Policy Updated, ci, by maria at " in said


def test_an_event_removed_in_the_middle_is_named(events):
    rows(sequence__in=[3, 4]).delete()
    said, code = told()
    assert code == 1
    assert f"history event 3 is missing; what follows is history event 5 (id {events[4].pk}" in said


def test_an_event_that_is_taken_out_to_be_sealed_anew_is_missed(events):
    rows(sequence=3).update(sequence=None, actor="mallory")
    hash_chain.seal_waiting()
    assert "history event 3 is missing" in told()[0]


def test_events_that_changed_places_are_named(events):
    rows(sequence=3).update(sequence=100)
    rows(sequence=4).update(sequence=3)
    rows(sequence=100).update(sequence=4)
    assert f"history event 3 (id {events[3].pk}" in told()[0]


def test_events_whose_ids_changed_places_are_named(events):
    rows(pk=events[2].pk).update(id=10**6)
    rows(pk=events[3].pk).update(id=events[2].pk)
    rows(pk=10**6).update(id=events[3].pk)
    assert "history event 3 (id " in told()[0]


def test_an_event_put_in_between_others_is_named(events):
    rows(pk=events[5].pk).update(sequence=7)
    copied(events[2], sequence=6, digest="0" * 64, id=10**6)
    assert "history event 6 (id 1000000: " in told()[0]


def test_an_old_event_put_in_where_an_id_was_free_is_named_before_and_after_the_next_change(events, organization):
    week_ago = timezone.now() - timedelta(days=7)
    rows(pk=events[2].pk).update(at=timezone.now() - timedelta(days=7))
    resealed_from(events[2].pk)
    copied(events[2], sequence=None, digest="", id=events[0].pk - 1, at=week_ago, actor="mallory")
    said, code = told()
    assert code == 1
    assert f"history event (id {events[0].pk - 1}: " in said
    assert "was put in later, among older ones, and is not sealed" in said
    factories.policy(organization, "next")
    said, code = told()
    assert code == 1
    assert f"history event 7 (id {events[0].pk - 1}: Policy Updated, ci, by mallory" in said


def resealed_from(pk):
    """Seal everything from this event on anew, as if it had been written so."""
    for event in HistoryEvent.objects.filter(pk__gte=pk).order_by("pk"):
        resealed(event)
    last = HistoryEvent.objects.latest("sequence")
    HistoryHead.objects.filter(ledger="history").update(digest=last.digest)


def copied(event, **values):
    """A row like the event, but with these values."""
    fields = {field.attname: getattr(event, field.attname) for field in HistoryEvent._meta.concrete_fields}
    QuerySet(model=HistoryEvent).bulk_create([HistoryEvent(**{**fields, **values})])


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        (5, "history event 6 is missing at the end; the last one there is 5"),
        (2, "history event 3 and all after it up to 6 are missing at the end; the last one there is 2"),
        (0, "history event 1 and all after it up to 6 are missing at the end; there is none"),
    ],
)
def test_a_missing_tail_is_named(events, kept, missing):
    rows(sequence__gt=kept).delete()
    said, code = told()
    assert code == 1
    assert missing in said


def test_a_head_that_was_removed_or_set_back_is_named(events):
    HistoryHead.objects.filter(ledger="history").update(sequence=4, digest=events[3].digest)
    assert "history event 5 lies beyond the head of the chain" in told()[0]
    HistoryHead.objects.all().delete()
    assert "history event 1 lies beyond the head of the chain" in told()[0]
    assert told()[1] == 1


def test_a_last_event_that_was_written_anew_does_not_fit_the_head(events):
    resealed(events[5], actor="mallory")
    assert "history event 6, the last one, is not the one that the head of the chain names" in told()[0]


def test_a_walk_takes_any_number_of_events_in_steps(events, organization, monkeypatch):
    monkeypatch.setattr(hash_chain, "VERIFIED_PER_STEP", 2)
    assert "6 history events verified" in told()[0]
    rows(sequence=5).update(actor="mallory")
    assert "history event 5 (" in told()[0]


def test_a_walk_goes_on_where_an_earlier_one_ended(events):
    finding = hash_chain.verify(hash_chain.HISTORY, "octo-org", most=4)
    assert (finding.place, finding.ended) == (hash_chain.Place(4, events[3].digest), False)
    finding = hash_chain.verify(hash_chain.HISTORY, "octo-org", start=finding.place, most=4)
    assert (finding.place, finding.misfit, finding.ended) == (hash_chain.Place(6, events[5].digest), "", True)
    resealed(events[3], actor="mallory")
    again = hash_chain.verify(hash_chain.HISTORY, "octo-org", start=hash_chain.Place(4, events[3].digest))
    assert again.misfit == "history event 4 is not the one that was verified before"


# What was there before, and what others write


def test_events_of_the_previous_release_are_sealed_in_order_by_the_next_change(events, organization):
    previous_release(events, 3)
    assert "6 history events verified; 3 not sealed yet" in told()[0]
    factories.policy(organization, "next")
    numbered = HistoryEvent.objects.order_by("pk").values_list("sequence", flat=True)
    assert list(numbered) == list(range(1, 11))
    assert told()[1] == 0


def test_a_long_backlog_is_left_to_the_worker(events, organization, monkeypatch):
    monkeypatch.setattr(hash_chain, "FEW", 3)
    monkeypatch.setattr(hash_chain, "SEALED_PER_STEP", 2)
    previous_release(events, 5)
    factories.policy(organization, "next")
    assert HistoryEvent.objects.filter(sequence=None).count() == 6
    hash_chain.seal_waiting()
    assert list(HistoryEvent.objects.order_by("pk").values_list("sequence", flat=True)) == list(range(1, 13))
    assert told()[1] == 0


def test_all_that_was_there_before_the_chain_is_sealed_by_the_worker(events):
    HistoryHead.objects.all().delete()
    rows().update(sequence=None, digest="")
    assert told() == (
        "octo-org: 0 history events verified; 6 not sealed yet, which the worker does.\n"
        "octo-org: 0 account events verified.\n" + MATCHES,
        0,
    )
    [job] = [job for job in worker.jobs() if job.name == "seal events of the history"]
    job.work()
    assert "octo-org: 6 history events verified.\n" in told()[0]


def previous_release(events, number):
    """Events as a process writes them that knows of no chain."""
    for _ in range(number):
        copied(events[0], id=None, kind="managed", sequence=None, digest="", at=timezone.now())


def test_events_of_keys_and_members_have_a_chain_too(organization):
    members.add(organization=organization, username="ann", role="owner", by=SYSTEM)
    factories.api_key(organization)
    hash_chain.seal_waiting()
    assert "octo-org: 2 account events verified." in told()[0]
    AccountEvent.objects.filter(sequence=1).update(detail="Auditor")
    said, code = told()
    assert code == 1
    assert "account event 1 (id " in said
    assert "member added, ann, by Policy Store at " in said


def test_other_apps_events_are_sealed_by_the_same_call(organization):
    event = history.record(
        "break_glass_opened",
        organization=organization,
        subject=("organization", organization.pk, "octo-org"),
        by=Actor("maria"),
        at=timezone.now(),
        details={"hours": 4, "scopes": ["a"], "share": 0.5, "big": 2**60, "nested": {"b": None, "a": 1.0}},
    )
    assert HistoryEvent.objects.get(pk=event.pk).sequence == 1
    assert told()[1] == 0


# What a digest is made from


def test_the_digest_of_given_values_never_changes():
    """What was sealed by one release verifies in the next, and on the other database."""
    event = HistoryEvent(
        id=7,
        owner="octo-org",
        subject_id=3,
        subject_name="bücher",
        kind=event_types.UPDATED,
        actor="maria",
        actor_kind="user",
        at=datetime(2026, 1, 31, 12, 0, 0, 120000, tzinfo=UTC),
        version=2,
        text_after="egress-policy: audit\r\n",
        scopes_added=[],
        details={"b": 1.0, "a": [0.5, None, True], "c": 2**60},
    )
    line = (
        '{"after":"' + "ab" * 32 + '","format":1,"ledger":"history","sequence":42,"values":{"actor":"maria",'
        '"actor_kind":"user","at":"2026-01-31T12:00:00.120000+00:00","details":{"a":["0.5",null,true],"b":1,'
        '"c":"1.152921504606847e+18"},"id":7,"kind":"updated","owner":"octo-org","subject_id":3,'
        '"subject_name":"b\\u00fccher","subject_type":"policy","text_after":"egress-policy: audit\\r\\n","version":2}}'
    )
    place = hash_chain.following(hash_chain.HISTORY, hash_chain.Place(41, "ab" * 32), event)
    assert place == hash_chain.Place(42, hashlib.sha256(line.encode()).hexdigest())


def test_a_digest_is_of_what_the_database_gives_back(organization):
    """The order of keys, the kind of numbers and the precision of times are each database's own."""
    details = {"z": 1, "a": {"y": 1.0, "b": 1e30}, "n": 12345678901234567890}
    moment = datetime(2026, 1, 31, 13, 0, 0, 123456, tzinfo=UTC)
    policy = factories.policy(organization, at=moment)
    event = history.record_policy("updated", policy=policy, by=SYSTEM, at=moment, details=details)
    before, stored = HistoryEvent.objects.order_by("pk")
    place = hash_chain.Place(1, before.digest)
    event.id = stored.id
    assert hash_chain.following(hash_chain.HISTORY, place, event).digest == stored.digest
    reordered = json.loads(json.dumps(stored.details, sort_keys=True))
    stored.details = reordered
    assert hash_chain.following(hash_chain.HISTORY, place, stored).digest == stored.digest


# Several at once


@pytest.mark.django_db(transaction=True)
def test_an_event_whose_chain_is_busy_is_sealed_right_after_its_commit(organization, monkeypatch):
    tried = []
    seal = hash_chain.seal

    def busy_in_the_transaction(ledger, owner, *, most):
        tried.append(connection.in_atomic_block)
        return False if connection.in_atomic_block else seal(ledger, owner, most=most)

    monkeypatch.setattr(hash_chain, "seal", busy_in_the_transaction)
    with transaction.atomic():
        factories.policy(organization)
        assert HistoryEvent.objects.get().sequence is None
    assert tried == [True, False]
    assert HistoryEvent.objects.get().sequence == 1


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_rolled_back_leaves_the_chain_as_it_was(organization):
    factories.policy(organization)
    with transaction.atomic():
        factories.policy(organization, "second")
        transaction.set_rollback(True)
    assert HistoryHead.objects.get().sequence == 1
    assert told()[1] == 0
