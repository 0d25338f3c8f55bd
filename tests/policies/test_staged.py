"""The staged version of a policy: its actions with their history, four eyes, endpoint sets, and its pages."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from policystore.accounts.models import Actor, Role
from policystore.audit_log import history
from policystore.audit_log.models import HistoryEvent
from policystore.integrations.models import OutboxMessage
from policystore.policies import endpoint_sets, never_allow
from policystore.policies import staging as staged
from policystore.policies.approvals import commands
from policystore.policies.approvals import requests as change_requests
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.errors import (
    EditConflict,
    InvalidDocument,
    ScopeNotCovered,
    SetInUse,
    StagedConflict,
    StagedGone,
)
from policystore.policies.models import CanaryScope, ChangeRequest, Policy, StagedVersion
from policystore.policies.pages import staged as staged_page
from policystore.policies.pages.get_or_404 import get_policy
from policystore.policy_language.document import written_endpoints
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db

ANN, BEN = Actor("ann"), Actor("ben")
STAGED = "egress-policy: block\nallowed-endpoints: ghcr.io:443\n"
AUDIT = "egress-policy: audit\n"
ORGANIZATION = Scope.for_organization("octo-org")
REPOSITORY = Scope.for_repository("octo-org", "hello-world")


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def policy(organization):
    made = factories.policy(organization, "ci")
    attachments.ModifyAttachments(policy=made, add=[ORGANIZATION]).apply(by=ANN)
    return made


def stage(policy, text=STAGED, *, live=1, event=None, by=ANN):
    return staged.StageVersion(policy=policy, text=text, live_version=live, expected_event=event).apply(by=by)


def canaries(policy, version, *scopes, by=ANN):
    return staged.SetCanaries(policy=policy, scopes=scopes, expected_event=version.event_id).apply(by=by)


def edit(policy, text, live=1, by=ANN):
    return policies.UpdatePolicy(
        policy=policy, name=policy.name, description="", text=text, expected_version=live
    ).apply(by=by)


def events(*kinds):
    return list(HistoryEvent.objects.filter(kind__in=kinds).order_by("pk"))


def browser(organization, role=Role.SECURITY_ADMIN, username="ann"):
    client = Client()
    client.force_login(
        factories.member(organization, role, username), backend="policystore.accounts.access.RoleBackend"
    )
    return client


def address(policy, name="staged"):
    return reverse(f"policies:{name}", args=["octo-org", policy.pk])


# Staging


def test_staging_leaves_what_is_live_alone_and_an_event_that_holds_what_canaries_get(policy):
    version = stage(policy)
    policy.refresh_from_db()
    assert (policy.version, policy.text) == (1, factories.TEXT)
    [event] = events("staged")
    assert version.event_id == event.pk
    assert (event.label, event.actor, event.version) == ("Version Staged", "ann", 1)
    assert event.details["reply"] == version.reply
    assert '"allowed_endpoints":["ghcr.io:443"]' in version.reply
    assert (event.details["text_before"], event.details["text_after"]) == (factories.TEXT, STAGED)
    assert event.reply_after == event.text_after == ""


def test_staging_again_keeps_the_canaries_and_counts_as_another_one(policy):
    first = stage(policy)
    canaries(policy, first, REPOSITORY)
    second = stage(policy, AUDIT, event=first.event_id)
    assert second.event_id > first.event_id
    assert CanaryScope.objects.get().scope_key == REPOSITORY.key
    assert events("staged")[-1].details["text_before"] == STAGED


def test_staging_the_same_again_changes_nothing(policy):
    first = stage(policy)
    assert stage(policy, event=first.event_id).event_id == first.event_id
    assert len(events("staged")) == 1


def test_an_invalid_text_is_not_staged(policy):
    with pytest.raises(InvalidDocument):
        stage(policy, "egress-policy: maybe\n")
    assert not StagedVersion.objects.exists()


def test_of_two_who_stage_at_once_the_second_is_told(policy):
    stage(policy, by=BEN)
    with pytest.raises(StagedConflict, match="ben has staged"):
        stage(policy, AUDIT)
    with pytest.raises(EditConflict):
        stage(edit(policy, AUDIT), AUDIT, live=1, event=StagedVersion.objects.get().event_id)


def test_nothing_is_staged_when_the_event_cannot_be_written(policy, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no history")

    monkeypatch.setattr(history, "record", refuse)
    with pytest.raises(RuntimeError):
        stage(policy)
    assert not StagedVersion.objects.exists()


# Promoting and discarding


def test_promoting_makes_a_new_version_and_says_what_it_promotes(policy):
    version = stage(policy)
    canaries(policy, version, REPOSITORY)
    live = staged.PromoteStaged(policy=policy, expected_event=version.event_id).apply(by=BEN)
    assert (live.version, live.text, live.reply) == (2, STAGED, version.reply)
    assert not StagedVersion.objects.exists()
    assert not CanaryScope.objects.exists()
    [event] = events("updated")
    assert (event.actor, event.reason) == ("ben", "Promotes the staged version.")
    assert event.details["promotes"] == version.event_id
    assert event.reply_after == version.reply


def test_promoting_over_a_later_edit_is_refused_until_it_is_based_on_that(policy):
    version = stage(policy)
    edit(policy, AUDIT)
    with pytest.raises(EditConflict):
        staged.PromoteStaged(policy=policy, expected_event=version.event_id).apply(by=ANN)
    rebased = stage(policy, live=2, event=version.event_id)
    assert rebased.based_on_version == 2
    assert staged.PromoteStaged(policy=policy, expected_event=rebased.event_id).apply(by=ANN).version == 3


def test_promoting_something_else_than_one_saw_is_refused(policy):
    version = stage(policy)
    again = stage(policy, AUDIT, event=version.event_id)
    with pytest.raises(StagedConflict):
        staged.PromoteStaged(policy=policy, expected_event=version.event_id).apply(by=ANN)
    staged.PromoteStaged(policy=policy, expected_event=again.event_id).apply(by=ANN)
    with pytest.raises(StagedGone):
        staged.PromoteStaged(policy=policy, expected_event=again.event_id).apply(by=ANN)


def test_promoting_what_is_live_already_only_ends_the_staging(policy):
    version = stage(policy, factories.TEXT)
    assert staged.PromoteStaged(policy=policy, expected_event=version.event_id).apply(by=ANN).version == 1
    assert events("staged_discarded")[0].reason == "The live version says the same."


def test_discarding_leaves_an_event_with_the_text(policy):
    version = stage(policy)
    canaries(policy, version, REPOSITORY)
    staged.discard(policy=policy, expected_event=version.event_id, by=BEN)
    [event] = events("staged_discarded")
    assert (event.label, event.actor) == ("Staged Version Discarded", "ben")
    assert event.details["text_before"] == STAGED
    assert event.details["canaries"] == [REPOSITORY.key]
    assert not StagedVersion.objects.exists()


def test_a_deleted_policy_takes_its_staged_version_along(policy):
    canaries(policy, stage(policy), REPOSITORY)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
    assert not StagedVersion.objects.exists()
    assert not CanaryScope.objects.exists()


def test_a_renamed_policy_has_its_new_name_in_what_canaries_get(policy):
    version = stage(policy)
    policies.UpdatePolicy(policy=policy, name="builds", description="", text=factories.TEXT, expected_version=1).apply(
        by=ANN
    )
    assert '"policy_name":"builds"' in StagedVersion.objects.get().reply
    assert StagedVersion.objects.get().event_id == version.event_id


# Canary scopes


def test_canary_scopes_are_set_as_a_whole_with_an_event_of_the_difference(policy):
    version = stage(policy)
    other = Scope.for_cluster("octo-org", "dev-k8s")
    canaries(policy, version, REPOSITORY, other)
    canaries(policy, version, other)
    canaries(policy, version, other)
    first, second = events("canaries_changed")
    assert (first.scopes_added, first.scopes_removed) == ([other.key, REPOSITORY.key], [])
    assert (second.scopes_added, second.scopes_removed) == ([], [REPOSITORY.key])


@pytest.mark.parametrize(
    ("attached", "canary", "is_covered"),
    [
        (ORGANIZATION, REPOSITORY, True),
        (REPOSITORY, Scope.for_workflow("octo-org", "hello-world", "ci.yml"), True),
        (REPOSITORY, Scope.for_repository("octo-org", "other"), False),
        (REPOSITORY, Scope.for_cluster("octo-org", "dev-k8s"), True),
        (REPOSITORY, Scope.for_organization("theirs"), False),
    ],
)
def test_a_canary_scope_must_have_jobs_that_get_the_policy(organization, attached, canary, is_covered):
    policy = factories.policy(organization, "narrow")
    attachments.ModifyAttachments(policy=policy, add=[attached]).apply(by=ANN)
    version = stage(policy)
    if is_covered:
        canaries(policy, version, canary)
    else:
        with pytest.raises(ScopeNotCovered):
            canaries(policy, version, canary)
    assert CanaryScope.objects.exists() is is_covered


def test_integrations_are_told(organization, policy):
    factories.integration(organization, chosen=["policy.staged"])
    version = stage(policy)
    canaries(policy, version, REPOSITORY)
    staged.discard(policy=policy, expected_event=version.event_id, by=ANN)
    assert [message.kind for message in OutboxMessage.objects.order_by("pk")] == ["policy.staged"] * 3


# Four eyes


def waiting():
    return ChangeRequest.objects.get(status="open")


def test_what_canaries_get_waits_for_a_second_person(organization, policy):
    factories.four_eyes_on(organization, by=ANN)
    version = stage(policy)
    with pytest.raises(commands.NeedsApproval) as wait:
        canaries(policy, version, REPOSITORY)
    change_requests.ask(change=wait.value.change, by=ANN)
    change_requests.approve(request=waiting(), by=BEN)
    assert CanaryScope.objects.get().scope_key == REPOSITORY.key
    with pytest.raises(commands.NeedsApproval) as wait:
        stage(policy, AUDIT, event=version.event_id)
    change_requests.ask(change=wait.value.change, by=ANN)
    change_requests.approve(request=waiting(), by=BEN)
    assert StagedVersion.objects.get().text == AUDIT


def test_promoting_waits_and_discarding_does_not(organization, policy):
    factories.four_eyes_on(organization, by=ANN)
    version = stage(policy)
    with pytest.raises(commands.NeedsApproval) as wait:
        staged.PromoteStaged(policy=policy, expected_event=version.event_id).apply(by=ANN)
    change_requests.ask(change=wait.value.change, by=ANN)
    assert StagedVersion.objects.exists()
    change_requests.approve(request=waiting(), by=BEN)
    assert Policy.objects.get().text == STAGED
    assert not StagedVersion.objects.exists()
    again = stage(Policy.objects.get(), AUDIT, live=2)
    staged.discard(policy=policy, expected_event=again.event_id, by=ANN)
    assert not StagedVersion.objects.exists()


# Endpoint sets


def test_a_set_that_a_staged_version_includes_changes_it_and_cannot_be_deleted(organization, policy):
    made = endpoint_sets.create(organization=organization, name="registries", text="ghcr.io:443\n", by=ANN)
    version = stage(policy, "egress-policy: block\nendpoint-sets: registries\n")
    with pytest.raises(SetInUse, match="ci"):
        endpoint_sets.delete(endpoint_set=made, by=ANN)
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=made, name="registries", description="", text="quay.io:443\n", expected_version=1
    ).apply(by=ANN)
    changed = StagedVersion.objects.get()
    assert '"allowed_endpoints":["quay.io:443"]' in changed.reply
    assert changed.event_id > version.event_id
    event = events("staged")[-1]
    assert (event.details["reply"], event.reason) == (changed.reply, "Endpoint set registries changed.")
    assert Policy.objects.get().version == 1


def test_a_host_that_is_never_allowed_leaves_what_canaries_get(organization, policy):
    version = stage(policy, "egress-policy: block\nallowed-endpoints: ghcr.io:443 quay.io:443\n")
    never_allow.add(organization=organization, host="quay.io", reason="leaks", by=ANN)
    changed = StagedVersion.objects.get()
    assert '"allowed_endpoints":["ghcr.io:443"]' in changed.reply
    assert changed.event_id > version.event_id
    assert events("staged")[-1].details["reply"] == changed.reply


# The pages


def hidden(page, name):
    return re.search(rf'name="{name}" value="(\d*)"', page).group(1)


def test_a_person_stages_gives_a_canary_and_promotes(organization, policy):
    ann = browser(organization)
    page = ann.get(address(policy)).content.decode()
    assert "No version is staged" in page
    ann.post(address(policy), {"text": STAGED, "version": "1"})
    page = ann.get(address(policy)).content.decode()
    event = hidden(page, "event")
    assert "ghcr.io:443" in page
    assert "Served to</dt><dd>nobody" in page
    ann.post(address(policy, "canaries"), {"event": event, "type": "repository", "name": "hello-world"})
    page = ann.get(address(policy)).content.decode()
    assert "1 canary scope" in page
    assert 'value="repository:octo-org/hello-world" checked' in page
    assert "1 canary scope" in ann.get(address(policy, "view")).content.decode()
    assert ann.post(address(policy, "promote"), {"event": event}).status_code == 302
    policy.refresh_from_db()
    assert (policy.version, policy.text) == (2, STAGED)


def test_a_canary_scope_is_taken_away_and_the_version_discarded(organization, policy):
    version = stage(policy)
    canaries(policy, version, REPOSITORY, Scope.for_repository("octo-org", "other"))
    ann = browser(organization)
    ann.post(address(policy, "canaries"), {"event": version.event_id, "keep": [REPOSITORY.key]})
    assert CanaryScope.objects.get().scope_key == REPOSITORY.key
    ann.post(address(policy, "discard"), {"event": version.event_id})
    assert not StagedVersion.objects.exists()
    page = ann.get(address(policy, "history")).content.decode()
    for text in ("Version Staged", "Canary Scopes Changed", "Staged Version Discarded", "Based on version 1."):
        assert text in page


def test_an_invalid_text_is_shown_with_its_problems(organization, policy):
    answer = browser(organization).post(address(policy), {"text": "egress-policy: maybe\n", "version": "1"})
    assert answer.status_code == 422
    assert "“maybe” is not a valid egress policy" in answer.content.decode()
    assert not StagedVersion.objects.exists()


def test_an_edit_or_a_staging_meanwhile_is_a_conflict_with_both_texts(organization, policy):
    ann = browser(organization)
    edit(policy, AUDIT, by=BEN)
    answer = ann.post(address(policy), {"text": STAGED, "version": "1"})
    page = answer.content.decode()
    assert answer.status_code == 409
    assert "ben saved version 2" in page
    assert hidden(page, "version") == "2"
    stage(policy, live=2, by=BEN)
    answer = ann.post(address(policy), {"text": AUDIT, "version": "2"})
    assert answer.status_code == 409
    assert "ben has staged another version" in answer.content.decode()


def test_where_live_moved_on_the_page_shows_it_and_promotes_only_after_that_was_looked_at(organization, policy):
    version = stage(policy)
    edit(policy, AUDIT, by=BEN)
    ann = browser(organization)
    page = ann.get(address(policy)).content.decode()
    assert "live is 2 now" in page
    assert address(policy, "promote") not in page
    answer = ann.post(address(policy, "promote"), {"event": version.event_id}, follow=True)
    assert "Nothing was promoted" in answer.content.decode()
    ann.post(address(policy), {"text": STAGED, "version": "2", "event": version.event_id})
    assert address(policy, "promote") in ann.get(address(policy)).content.decode()


@pytest.mark.parametrize(
    "values",
    [
        {"type": "repository", "name": "a b"},
        {"type": "", "name": "hello-world"},
        {"type": "nonsense", "name": "x"},
        {"keep": ["nonsense"]},
        {"type": "workflow", "name": "ci.yml"},
        {"type": "repository", "name": "\0"},
    ],
    ids=str,
)
def test_a_bad_canary_scope_is_refused_with_a_sentence(organization, policy, values):
    version = stage(policy)
    answer = browser(organization).post(address(policy, "canaries"), {"event": version.event_id, **values})
    assert answer.status_code == 422
    assert "errorlist" in answer.content.decode()
    assert not CanaryScope.objects.exists()


def test_canaries_of_a_policy_that_is_deleted_meanwhile_lead_back_to_the_list(organization, policy, monkeypatch):
    version = stage(policy)

    def get_and_delete(*arguments):
        found = get_policy(*arguments)
        policies.DeletePolicy(policy=found).apply(by=BEN)
        return found

    monkeypatch.setattr(staged_page, "get_policy", get_and_delete)
    form = {"event": version.event_id, "type": "organization"}
    answer = browser(organization).post(address(policy, "canaries"), form, follow=True)
    assert answer.redirect_chain == [(reverse("policies:list", args=["octo-org"]), 302)]
    assert "The policy ci was deleted in the meantime." in answer.content.decode()


@pytest.mark.parametrize("event", ["", "x", "0", "1", "9" * 30])
def test_what_is_not_there_any_more_is_neither_promoted_nor_discarded(organization, policy, event):
    stage(policy)
    ann = browser(organization)
    for name in ("promote", "discard"):
        page = ann.post(address(policy, name), {"event": event}, follow=True).content.decode()
        assert "in the meantime" in page
    assert StagedVersion.objects.exists()
    assert Policy.objects.get().version == 1


def test_what_may_not_be_listed_any_more_is_not_promoted(organization, policy):
    version = stage(policy)
    never_allow.add(organization=organization, host="ghcr.io", reason="Leaks", by=ANN)
    version.refresh_from_db()
    page = browser(organization).post(address(policy, "promote"), {"event": version.event_id}, follow=True)
    assert "The policy has 1 error. Nothing was promoted" in page.content.decode()
    assert StagedVersion.objects.exists()
    assert Policy.objects.get().text == policy.text


def test_an_auditor_sees_it_and_changes_nothing(organization, policy):
    version = stage(policy)
    auditor = browser(organization, Role.AUDITOR, "audrey")
    page = auditor.get(address(policy)).content.decode()
    assert "ghcr.io:443" in page
    assert "<textarea" not in page
    assert "Promote" not in page
    for name in ("staged", "canaries", "promote", "discard"):
        assert auditor.post(address(policy, name), {"event": version.event_id}).status_code == 403


def test_an_endpoint_is_brought_along_into_the_editor_and_nothing_is_saved(organization, policy):
    stage(policy)
    page = browser(organization).get(address(policy), {"add": ["quay.io:443", "a b", "\0"]})
    assert written_endpoints(page.context["form"]["text"].value()) == ["ghcr.io:443", "quay.io:443"]
    assert StagedVersion.objects.get().text == STAGED
