"""Attaching and detaching: one policy a scope, both sides of a replacement told."""

import pytest

from policystore.accounts.models import Actor
from policystore.audit_log.models import HistoryEvent
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments, queries
from policystore.policies.errors import ForeignScope, PolicyGone, ScopesTaken
from policystore.policies.models import Attachment
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
REPO = Scope.for_repository("octo-org", "hello-world")
WORKFLOW = Scope.for_workflow("octo-org", "hello-world", "ci.yml")
ORGANIZATION = Scope.for_organization("octo-org")
CLUSTER = Scope.for_cluster("octo-org", "dev-k8s")


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def first(organization):
    return factories.policy(organization, "first")


@pytest.fixture
def second(organization):
    return factories.policy(organization, "second")


def kinds(policy):
    return list(HistoryEvent.objects.filter(subject_id=policy.pk).order_by("pk").values_list("kind", flat=True))


def test_one_policy_goes_on_many_scopes_of_mixed_types_in_one_event(first):
    attachments.ModifyAttachments(policy=first, add=[REPO, WORKFLOW, ORGANIZATION, CLUSTER]).apply(by=ANN)
    event = HistoryEvent.objects.latest("pk")
    assert event.kind == "attached"
    assert event.actor == "ann"
    assert set(event.scopes_added) == {REPO.key, WORKFLOW.key, ORGANIZATION.key, CLUSTER.key}
    first.refresh_from_db()
    assert first.attachment_count == 4
    assert (
        queries.list_page(first.organization).rows[0].attached_to == "Organization, 1 repository, 1 workflow, 1 cluster"
    )


def test_it_asks_before_it_replaces_another_policy(first, second):
    attachments.ModifyAttachments(policy=first, add=[REPO]).apply(by=ANN)
    with pytest.raises(ScopesTaken) as refusal:
        attachments.ModifyAttachments(policy=second, add=[REPO, ORGANIZATION]).apply(by=ANN)
    assert [(item.scope, item.policy.name) for item in refusal.value.taken] == [(REPO, "first")]
    assert Attachment.objects.get().policy == first
    assert kinds(second) == ["created"]


def test_it_replaces_the_current_attachment_and_tells_both_histories(first, second):
    attachments.ModifyAttachments(policy=first, add=[REPO, WORKFLOW]).apply(by=ANN)
    attachments.ModifyAttachments(policy=second, add=[REPO], replacing={REPO.key: first.pk}).apply(by=ANN)
    assert Attachment.objects.get(scope_key=REPO.key).policy == second
    assert kinds(first) == ["created", "attached", "detached"]
    assert kinds(second) == ["created", "attached"]
    lost = HistoryEvent.objects.filter(subject_id=first.pk).latest("pk")
    assert (lost.scopes_removed, lost.reason) == ([REPO.key], "Replaced by second.")
    first.refresh_from_db()
    assert first.attachment_count == 1


def test_a_confirmation_counts_only_for_the_policy_it_named(organization, first, second):
    third = factories.policy(organization, "third")
    attachments.ModifyAttachments(policy=third, add=[REPO]).apply(by=ANN)
    with pytest.raises(ScopesTaken):
        attachments.ModifyAttachments(policy=second, add=[REPO], replacing={REPO.key: first.pk}).apply(by=ANN)


def test_scopes_are_added_and_removed_in_one_go(first):
    attachments.ModifyAttachments(policy=first, add=[WORKFLOW]).apply(by=ANN)
    attachments.ModifyAttachments(policy=first, add=[REPO], remove=[WORKFLOW]).apply(by=ANN)
    event = HistoryEvent.objects.latest("pk")
    assert (event.kind, event.scopes_added, event.scopes_removed) == ("attached", [REPO.key], [WORKFLOW.key])


def test_attaching_what_is_attached_changes_nothing(first):
    attachments.ModifyAttachments(policy=first, add=[REPO]).apply(by=ANN)
    attachments.ModifyAttachments(policy=first, add=[REPO], remove=[CLUSTER]).apply(by=ANN)
    assert kinds(first) == ["created", "attached"]


def test_detaching_removes_all_scopes_and_keeps_the_policy(first):
    attachments.ModifyAttachments(policy=first, add=[REPO, CLUSTER]).apply(by=ANN)
    attachments.DetachPolicy(policy=first).apply(by=ANN)
    attachments.DetachPolicy(policy=first).apply(by=ANN)
    assert not Attachment.objects.exists()
    assert kinds(first) == ["created", "attached", "detached"]


def test_another_organizations_scope_is_refused(first):
    with pytest.raises(ForeignScope):
        attachments.ModifyAttachments(policy=first, add=[Scope.for_repository("other", "hello-world")]).apply(by=ANN)


def test_a_deleted_policy_cannot_be_attached(first):
    policies.DeletePolicy(policy=first).apply(by=ANN)
    with pytest.raises(PolicyGone):
        attachments.ModifyAttachments(policy=first, add=[REPO]).apply(by=ANN)


def test_deleting_detaches_first_and_keeps_the_history(first):
    attachments.ModifyAttachments(policy=first, add=[REPO]).apply(by=ANN)
    policies.DeletePolicy(policy=first).apply(by=ANN)
    assert not Attachment.objects.exists()
    assert kinds(first) == ["created", "attached", "detached", "deleted"]


def test_an_attachment_is_lost_with_its_history_event_when_the_event_cannot_be_written(first, monkeypatch):
    def fail(**_):
        raise RuntimeError("no history")

    monkeypatch.setattr(attachments.history, "record_scopes", fail)
    with pytest.raises(RuntimeError):
        attachments.ModifyAttachments(policy=first, add=[REPO]).apply(by=ANN)
    assert not Attachment.objects.exists()


def test_a_thousand_scopes_are_replaced_at_once(first, second):
    scopes = [Scope.for_repository("octo-org", f"repo-{number}") for number in range(1200)]
    attachments.ModifyAttachments(policy=first, add=scopes).apply(by=ANN)
    attachments.ModifyAttachments(policy=second, add=scopes, replacing={scope.key: first.pk for scope in scopes}).apply(
        by=ANN
    )
    assert Attachment.objects.filter(policy=second).count() == 1200
