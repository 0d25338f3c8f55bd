"""Several people at once: never two policies on a scope, never a lost update, an event for each acknowledged change."""

import threading
import time
from random import Random

import pytest
from django.db import connection, transaction

from policystore.accounts.models import SYSTEM, Actor, Role
from policystore.audit_log import hash_chain
from policystore.audit_log.models import HistoryEvent
from policystore.policies.approvals import requests as change_requests
from policystore.policies.approvals.commands import NeedsApproval
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.errors import EditConflict, NameTaken, PolicyGone, ScopesTaken
from policystore.policies.models import Attachment, ChangeRequest, Policy
from policystore.policy_language.document import check
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = 6


def together(work):
    """Run `work(number)` for each person at the same moment; returns what each gave back."""
    barrier, results, errors = threading.Barrier(PEOPLE), {}, []

    def run(number):
        try:
            barrier.wait(timeout=20)
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(PEOPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert errors == []
    return [results[number] for number in range(PEOPLE)]


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def test_of_those_who_attach_to_one_scope_at_once_one_gets_it_and_the_others_are_asked(organization):
    scope = Scope.for_repository("octo-org", "hello-world")
    made = [factories.policy(organization, f"policy-{number}") for number in range(PEOPLE)]

    def work(number):
        try:
            attachments.ModifyAttachments(policy=made[number], add=[scope]).apply(by=Actor(f"person-{number}"))
        except ScopesTaken as refusal:
            return refusal.taken[0].policy.name
        return None

    results = together(work)
    holder = Attachment.objects.get().policy
    assert results.count(None) == 1
    assert {name for name in results if name} == {holder.name}
    assert HistoryEvent.objects.filter(kind="attached").count() == 1
    assert sum(Policy.objects.values_list("attachment_count", flat=True)) == 1


def test_of_those_who_save_one_version_at_once_one_wins_and_the_others_are_told(organization):
    policy = factories.policy(organization)

    def work(number):
        try:
            text = f"egress-policy: audit # {number}\n"
            policies.UpdatePolicy(policy=policy, name=policy.name, description="", text=text, expected_version=1).apply(
                by=Actor(str(number))
            )
        except EditConflict:
            return False
        return True

    assert together(work).count(True) == 1
    assert Policy.objects.get().version == 2
    assert HistoryEvent.objects.filter(kind="updated").count() == 1


def test_of_those_who_choose_one_name_at_once_one_gets_it(organization):
    def work(number):
        try:
            factories.policy(organization, "wanted" if number % 2 else "WANTED")
        except NameTaken:
            return False
        return True

    assert together(work).count(True) == 1
    assert Policy.objects.count() == 1


def test_a_crowd_that_does_everything_at_once_leaves_a_whole_store(organization):
    scopes = [Scope.for_repository("octo-org", f"repo-{number}") for number in range(4)]
    shared = [factories.policy(organization, f"shared-{number}") for number in range(4)]
    before = HistoryEvent.objects.count()

    def work(person):
        random, by, acknowledged = Random(person), Actor(f"person-{person}"), 0
        for step in range(12):
            policy = random.choice(shared)
            acknowledged += _change(random, policy, scopes, by, step)
        return acknowledged

    acknowledged = sum(together(work))
    assert HistoryEvent.objects.count() - before == acknowledged
    keys = list(Attachment.objects.values_list("scope_key", flat=True))
    assert len(keys) == len(set(keys))
    for policy in Policy.objects.all():
        assert policy.attachment_count == policy.attachments.count()
        assert check(policy.text).document is not None
        versions = HistoryEvent.objects.filter(subject_id=policy.pk, kind="updated").order_by("pk")
        assert [event.version for event in versions] == list(range(2, policy.version + 1))
    assert_history_verifies()


def test_sealing_the_history_makes_nobody_wait_who_holds_what_the_sealer_wants(organization):
    """Half of them record an event, then lock a policy; the others the other way round. Nobody is caught in between."""
    shared = factories.policy(organization, "shared")
    own = [factories.policy(organization, f"own-{number}") for number in range(PEOPLE)]

    def work(number):
        for step in range(8):
            order = [own[number], shared] if number % 2 else [shared, own[number]]
            with transaction.atomic():
                for policy in order:
                    _describe(policy, f"{number} {step}")

    before = HistoryEvent.objects.count()
    together(work)
    assert HistoryEvent.objects.count() - before == PEOPLE * 8 * 2
    assert_history_verifies()


def test_a_request_can_be_approved_while_the_same_change_is_requested_again(organization):
    """The approval holds the request and waits for the rules, which the transaction that looks for requests holds."""
    policy = factories.policy(organization, "ci", factories.TEXT)
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_repository("octo-org", "hello")]).apply(by=SYSTEM)
    factories.four_eyes_on(organization)
    by = Actor("terraform", kind="api_key")
    with pytest.raises(NeedsApproval) as waiting:
        attachments.DetachPolicy(policy=policy).apply(by=by)
    change = waiting.value.change
    request = change_requests.ask(change=change, by=by)
    approver = Actor(factories.member(organization, Role.OWNER, "olga").username)
    errors = []

    def approve():
        try:
            change_requests.approve(request=request, by=approver)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=approve)
    with transaction.atomic():
        policies.locked(policy)
        thread.start()
        time.sleep(0.5)
        change_requests.ask(change=change, by=by)
    thread.join(timeout=60)
    assert errors == []
    request.refresh_from_db()
    assert request.status == ChangeRequest.Status.APPROVED


def _describe(policy, description):
    current = policies.locked(policy)
    policies.UpdatePolicy(
        policy=current, name=current.name, description=description, text=current.text, expected_version=current.version
    ).apply(by=SYSTEM)


def assert_history_verifies():
    """Every event has its place in the chain once the worker had a turn."""
    hash_chain.seal_waiting()
    assert HistoryEvent.objects.filter(sequence=None).count() == 0
    finding = hash_chain.verify(hash_chain.HISTORY, "octo-org")
    assert (finding.place.sequence, finding.misfit) == (HistoryEvent.objects.count(), "")


def _change(random, policy, scopes, by, step):
    """One random change; returns how many history events it must have left."""
    try:
        kind = random.choice(("attach", "replace", "edit", "detach"))
        if kind == "edit":
            current = Policy.objects.get(pk=policy.pk)
            text = f"egress-policy: audit # {by.name} {step}\n"
            policies.UpdatePolicy(
                policy=current, name=current.name, description="", text=text, expected_version=current.version
            ).apply(by=by)
            return 1
        counted = HistoryEvent.objects.filter(actor=by.name)
        earlier = counted.count()
        if kind == "detach":
            attachments.DetachPolicy(policy=policy).apply(by=by)
        else:
            scope = random.choice(scopes)
            holder = Attachment.objects.filter(scope_key=scope.key).first()
            replacing = {scope.key: holder.policy_id} if holder and kind == "replace" else {}
            attachments.ModifyAttachments(policy=policy, add=[scope], replacing=replacing).apply(by=by)
        return counted.count() - earlier
    except (ScopesTaken, EditConflict, PolicyGone):
        return 0
