"""Endpoint sets: what policies get of them, and what a change of one does to every policy that includes it."""

import json

import pytest

from policystore.accounts.models import Actor
from policystore.audit_log.models import HistoryEvent
from policystore.integrations.models import OutboxMessage
from policystore.policies import compiler, endpoint_sets
from policystore.policies.approvals import commands
from policystore.policies.approvals import requests as change_requests
from policystore.policies.compiler import PoliciesWouldChange
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments, queries, versions
from policystore.policies.errors import (
    CannotRecompile,
    EditConflict,
    InvalidDocument,
    InvalidName,
    NameTaken,
    SetConflict,
    SetGone,
    SetInUse,
)
from policystore.policies.models import EndpointSet, EndpointSetUse, Policy
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
TEXT = "egress-policy: block\nallowed-endpoints: github.com\nendpoint-sets: {}\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def including(organization, name="ci", sets="npm"):
    return factories.policy(organization, name, TEXT.format(sets))


def change(endpoint_set, text, **values):
    changed = {"name": endpoint_set.name, "description": endpoint_set.description, **values}
    changed.setdefault("expected_version", endpoint_set.version)
    by = changed.pop("by", ANN)
    return endpoint_sets.UpdateEndpointSet(endpoint_set=endpoint_set, text=text, **changed).apply(by=by)


def preview_of(endpoint_set, text):
    with pytest.raises(PoliciesWouldChange) as nobody_agreed:
        change(endpoint_set, text, agreed=[])
    return nobody_agreed.value.effects


def served(policy):
    return json.loads(Policy.objects.get(pk=policy.pk).reply)["allowed_endpoints"]


def edited(policy, text, expected_version):
    return policies.UpdatePolicy(
        policy=policy, name=policy.name, description="", text=text, expected_version=expected_version
    ).apply(by=ANN)


def test_runners_get_the_sets_endpoints_after_the_policys_own(organization):
    factories.endpoint_set(organization)
    policy = including(organization)
    assert served(policy) == ["github.com:443", "registry.octo1.org:443", "registry.yarnpkg.com:443"]
    assert policy.endpoint_count == 3
    assert [found.policy.name for found in queries.list_page(organization, search="yarnpkg").rows] == ["ci"]


def test_a_policy_cannot_name_a_set_that_the_organization_does_not_have(organization):
    factories.endpoint_set(factories.organization("other"), "npm")
    with pytest.raises(InvalidDocument) as refusal:
        including(organization)
    assert [(problem.line, problem.code) for problem in refusal.value.problems] == [(3, "unknown-endpoint-set")]


def test_a_name_that_no_database_looks_for_is_that_of_no_set(organization):
    checked = compiler.check(organization, 'egress-policy: audit\nendpoint-sets: ["np\\0m"]\n')
    assert [(problem.line, problem.code) for problem in checked.problems] == [(2, "unknown-endpoint-set")]


def test_a_change_of_a_set_gives_each_policy_with_it_a_new_version_that_history_tells(organization):
    npm = factories.endpoint_set(organization)
    first, second = including(organization, "first"), including(organization, "second")
    other = factories.policy(organization, "other")
    _, effects = change(npm, "registry.octo1.org\nnpmjs.com\n")
    assert served(first) == served(second) == ["github.com:443", "registry.octo1.org:443", "npmjs.com:443"]
    assert [(effect.name, effect.added, effect.removed) for effect in effects] == [
        ("first", ("npmjs.com:443",), ("registry.yarnpkg.com:443",)),
        ("second", ("npmjs.com:443",), ("registry.yarnpkg.com:443",)),
    ]
    set_event, *events = HistoryEvent.objects.filter(actor="ann").order_by("pk")
    assert (set_event.kind, set_event.subject_type, set_event.subject_name, set_event.version) == (
        "set_updated",
        "endpoint_set",
        "npm",
        2,
    )
    assert (set_event.text_before, set_event.text_after) == (npm.text, "registry.octo1.org\nnpmjs.com\n")
    assert [(event.kind, event.subject_id, event.version, event.reason) for event in events] == [
        ("updated", first.pk, 2, "Endpoint set npm changed."),
        ("updated", second.pk, 2, "Endpoint set npm changed."),
    ]
    assert json.loads(events[0].reply_after)["allowed_endpoints"] == served(first)
    assert events[0].details == {
        "cause": {"kind": "endpoint_set", "id": npm.pk, "name": "npm", "version": 2},
        "endpoints_added": ["npmjs.com:443"],
        "endpoints_removed": ["registry.yarnpkg.com:443"],
    }
    assert Policy.objects.get(pk=first.pk).changed_by == "ann"
    assert Policy.objects.get(pk=other.pk).version == 1


def test_a_version_that_a_set_made_can_be_viewed_and_compared(organization):
    npm = factories.endpoint_set(organization)
    policy = including(organization)
    change(npm, "a.com\n")
    of = versions.subject(organization, policy.pk)
    assert [event.version for event in versions.page(of).rows] == [2, 1]
    compared = versions.compare(versions.version(of, 1), versions.version(of, 2))
    assert compared.rows == []
    assert any("a.com" in "".join(part.text for part in row.right) for row in compared.reply_rows)


def test_a_change_that_runners_do_not_notice_leaves_the_policies_alone(organization):
    npm = factories.endpoint_set(organization)
    policy = including(organization)
    saved, effects = change(npm, "# packages\nregistry.octo1.org\nregistry.yarnpkg.com\ngithub.com\n")
    assert (saved.version, effects, Policy.objects.get(pk=policy.pk).version) == (2, [], 1)
    assert change(saved, saved.text) == (saved, [])
    assert HistoryEvent.objects.filter(actor="ann").count() == 1


def test_everything_goes_back_when_one_policy_cannot_be_compiled(organization):
    npm = factories.endpoint_set(organization)
    own = "\n".join(f"  h{number}.example.com" for number in range(1997))
    big = factories.policy(
        organization, "big", f"egress-policy: audit\nallowed-endpoints: >\n{own}\nendpoint-sets: npm\n"
    )
    small = including(organization, "small")
    events = HistoryEvent.objects.count()
    with pytest.raises(CannotRecompile, match=r"big would list 2,001 endpoints \(maximum 2,000\)"):
        change(npm, "a.com\nb.com\nc.com\nd.com\n")
    assert [Policy.objects.get(pk=policy.pk).version for policy in (big, small)] == [1, 1]
    assert (EndpointSet.objects.get().version, HistoryEvent.objects.count()) == (1, events)


def test_policies_beyond_those_agreed_to_are_not_changed(organization):
    npm = factories.endpoint_set(organization)
    seen, late = including(organization, "seen"), including(organization, "late")
    with pytest.raises(PoliciesWouldChange):
        change(npm, "a.com\n", agreed=[seen.pk])
    assert (EndpointSet.objects.get().version, Policy.objects.get(pk=seen.pk).version) == (1, 1)
    change(npm, "a.com\n", agreed=[seen.pk, late.pk])
    assert served(late) == ["github.com:443", "a.com:443"]


def test_the_preview_tells_what_saving_then_does(organization):
    npm = factories.endpoint_set(organization)
    policy = including(organization)
    factories.endpoint_set(organization, "more", "more.example.com\n")
    including(organization, "two", "[more, npm]")
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=ANN)
    told = preview_of(npm, "registry.octo1.org\nx.example.com\n")
    assert Policy.objects.get(pk=policy.pk).version == 1
    assert [(effect.name, effect.attachment_count) for effect in told] == [("ci", 1), ("two", 0)]
    _, done = change(npm, "registry.octo1.org\nx.example.com\n")
    assert told == done


def test_a_set_in_use_is_neither_deleted_nor_renamed_and_names_its_policies(organization):
    npm = factories.endpoint_set(organization)
    policy = including(organization)
    with pytest.raises(SetInUse, match=r"A policy includes this set: ci\. Remove it from it before you delete the set"):
        endpoint_sets.delete(endpoint_set=npm, by=ANN)
    with pytest.raises(SetInUse, match="give the set another name"):
        change(npm, npm.text, name="node")
    change(npm, npm.text, name="NPM")
    edited(policy, "egress-policy: audit\n", 1)
    assert not EndpointSetUse.objects.exists()
    endpoint_sets.delete(endpoint_set=npm, by=ANN)
    event = HistoryEvent.objects.latest("pk")
    assert (event.kind, event.text_before, event.text_after) == ("set_deleted", npm.text, "")
    with pytest.raises(SetGone):
        endpoint_sets.delete(endpoint_set=npm, by=ANN)


def test_a_deleted_policy_includes_nothing_any_more(organization):
    npm = factories.endpoint_set(organization)
    policies.DeletePolicy(policy=including(organization)).apply(by=ANN)
    endpoint_sets.delete(endpoint_set=npm, by=ANN)
    assert not EndpointSet.objects.exists()


@pytest.mark.parametrize("name", ["", "a b", "-x", "é", "a" * 101, "a/b", "a\nb"])
def test_names_that_cannot_stand_in_a_policy_are_refused(organization, name):
    with pytest.raises(InvalidName):
        factories.endpoint_set(organization, name)


def test_names_of_sets_are_unique_in_an_organization_without_case(organization):
    factories.endpoint_set(organization, "npm")
    with pytest.raises(NameTaken):
        factories.endpoint_set(organization, "NPM")
    other = factories.endpoint_set(organization, "other")
    with pytest.raises(NameTaken):
        change(other, other.text, name="Npm")
    factories.endpoint_set(factories.organization("other"), "npm")


def test_a_save_over_somebody_elses_version_is_refused(organization):
    npm = factories.endpoint_set(organization)
    change(npm, "a.com\n")
    with pytest.raises(SetConflict, match="ann saved version 2 of this endpoint set"):
        change(npm, "b.com\n", expected_version=1)


def test_a_set_that_changed_meanwhile_does_not_stand_in_the_way_of_an_edit_of_the_policy(organization):
    npm = factories.endpoint_set(organization)
    policy = including(organization)
    change(npm, "a.com\n")
    saved = edited(policy, "egress-policy: block\nendpoint-sets: npm\n", expected_version=1)
    assert (saved.version, served(saved)) == (3, ["a.com:443"])
    with pytest.raises(EditConflict):
        edited(policy, "egress-policy: audit\n", expected_version=2)


def test_a_change_that_reaches_a_policy_that_blocks_waits_for_a_second_person(organization):
    npm = factories.endpoint_set(organization)
    factories.policy(organization, "audited", "egress-policy: audit\nendpoint-sets: npm\n")
    factories.four_eyes_on(organization)
    saved, _ = change(npm, "a.com\n")
    policy = including(organization)
    with pytest.raises(commands.NeedsApproval) as waiting:
        change(saved, "b.com\n", agreed=[effect.policy_id for effect in preview_of(saved, "b.com\n")])
    assert served(policy) == ["github.com:443", "a.com:443"]
    request = change_requests.ask(change=waiting.value.change, by=ANN)
    assert [policy["name"] for policy in request.shown["policies"]] == ["audited", "ci"]
    change_requests.approve(request=request, by=Actor("bob"))
    assert served(policy) == ["github.com:443", "b.com:443"]
    event = HistoryEvent.objects.get(kind="updated", subject_id=policy.pk)
    assert (event.actor, event.details["approved_by"]) == ("ann", "bob")
    assert event.details["endpoints_added"] == ["b.com:443"]


def test_integrations_are_told_of_the_set_and_of_each_policy(organization):
    npm = factories.endpoint_set(organization)
    including(organization)
    factories.integration(organization)
    change(npm, "a.com\n")
    told = {message.kind: json.loads(message.payload) for message in OutboxMessage.objects.all()}
    assert told.keys() == {"endpoint_set.updated", "policy.updated"}
    assert told["endpoint_set.updated"]["endpoint_set"] == "npm"
    assert told["policy.updated"]["details"]["endpoints_added"] == ["a.com:443"]


def test_the_reply_of_a_policy_without_sets_is_as_before(organization):
    policy = factories.policy(organization, "plain")
    assert policy.reply == (
        '{"policy_name":"plain","owner":"octo-org","policyName":"plain",'
        '"allowed_endpoints":["github.com:443","api.github.com:443"],"egress_policy":"block","disable_sudo":false,'
        '"disable_sudo_and_containers":false,"disable_file_monitoring":false,"disable_telemetry":false}'
    )
