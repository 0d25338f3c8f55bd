"""Creating, updating and deleting policies."""

import json

import pytest

from policystore.accounts.models import Actor
from policystore.audit_log.models import HistoryEvent, HistoryIsAppendOnly
from policystore.policies.core import actions as policies
from policystore.policies.errors import (
    EditConflict,
    InvalidDescription,
    InvalidDocument,
    InvalidName,
    NameTaken,
    PolicyGone,
)
from policystore.policies.models import Policy
from tests import factories

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
TEXT = "egress-policy: block\nallowed-endpoints: >  # ours\n  GitHub.com\n  api.github.com:443\n"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


def create(organization, name="baseline", text=TEXT, **more):
    return policies.create(organization=organization, name=name, text=text, by=ANN, **more)


def save(policy, by=ANN, **changes):
    values = {
        "name": policy.name,
        "description": policy.description,
        "text": policy.text,
        "expected_version": policy.version,
        **changes,
    }
    return policies.UpdatePolicy(policy=policy, **values).apply(by=by)


def test_the_text_is_kept_byte_for_byte_and_the_reply_is_compiled(organization):
    policy = Policy.objects.get(pk=create(organization).pk)
    assert policy.text == TEXT
    assert json.loads(policy.reply) == {
        "policy_name": "baseline",
        "owner": "octo-org",
        "policyName": "baseline",
        "allowed_endpoints": ["github.com:443", "api.github.com:443"],
        "egress_policy": "block",
        "disable_sudo": False,
        "disable_sudo_and_containers": False,
        "disable_file_monitoring": False,
        "disable_telemetry": False,
    }
    assert (policy.egress_policy, policy.endpoint_count, policy.version) == ("block", 2, 1)


def test_creation_is_told_in_the_history(organization):
    policy = create(organization, description="Ours")
    event = HistoryEvent.objects.get()
    assert (event.kind, event.subject_id, event.subject_name, event.actor) == ("created", policy.pk, "baseline", "ann")
    assert (event.text_before, event.text_after, event.description_after) == ("", TEXT, "Ours")


def test_names_are_unique_in_an_organization_without_case(organization):
    create(organization, "Baseline")
    with pytest.raises(NameTaken, match="already has a policy named “Baseline”"):
        create(organization, "baseline")
    create(factories.organization("other"), "baseline")
    assert Policy.objects.count() == 2


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "a/b", "-x", "é", "a\nb", "a\0b", "workflow-policy", "<b>"])
def test_names_that_cannot_be_in_an_address_are_refused(organization, name):
    with pytest.raises(InvalidName):
        create(organization, name)


@pytest.mark.parametrize("description", ["a" * 501, "a\0b"])
def test_descriptions_that_cannot_be_stored_are_refused(organization, description):
    with pytest.raises(InvalidDescription):
        create(organization, description=description)


def test_errors_in_the_text_stop_the_save(organization):
    with pytest.raises(InvalidDocument) as refusal:
        create(organization, text="egress-policy: blok\nallowed-endpoint: x\n")
    assert {problem.line for problem in refusal.value.problems} == {1, 2}
    assert not Policy.objects.exists()


def test_an_update_makes_a_version_and_tells_both_texts(organization):
    policy = create(organization)
    save(policy, text=TEXT + "  # more\n", by=Actor("bob"))
    policy.refresh_from_db()
    event = HistoryEvent.objects.latest("pk")
    assert (policy.version, policy.changed_by) == (2, "bob")
    assert (event.kind, event.text_before, event.text_after) == ("updated", TEXT, TEXT + "  # more\n")


def test_a_rename_is_told_and_reaches_the_reply(organization):
    policy = create(organization)
    save(policy, name="renamed")
    event = HistoryEvent.objects.latest("pk")
    policy.refresh_from_db()
    assert (event.name_before, event.subject_name) == ("baseline", "renamed")
    assert json.loads(policy.reply)["policy_name"] == "renamed"


def test_saving_what_is_there_leaves_no_event(organization):
    policy = create(organization)
    save(policy)
    assert HistoryEvent.objects.count() == 1


def test_the_second_of_two_editors_is_refused_and_nothing_is_lost(organization):
    policy = create(organization)
    save(policy, text="egress-policy: audit\n", by=Actor("bob"))
    with pytest.raises(EditConflict) as conflict:
        save(policy, text="egress-policy: block\n", expected_version=1)
    assert conflict.value.current.text == "egress-policy: audit\n"
    policy.refresh_from_db()
    assert policy.text == "egress-policy: audit\n"


def test_a_policy_that_is_gone_cannot_be_updated(organization):
    policy = create(organization)
    policies.DeletePolicy(policy=Policy.objects.get()).apply(by=ANN)
    with pytest.raises(PolicyGone):
        save(policy, text="egress-policy: audit\n")


def test_history_cannot_be_changed_or_deleted(organization):
    create(organization)
    event = HistoryEvent.objects.get()
    event.actor = "mallory"
    for attempt in (
        event.save,
        event.delete,
        HistoryEvent.objects.all().delete,
        lambda: HistoryEvent.objects.update(actor="mallory"),
        lambda: HistoryEvent.objects.bulk_update([event], ["actor"]),
    ):
        with pytest.raises(HistoryIsAppendOnly):
            attempt()
    assert HistoryEvent.objects.get().actor == "ann"
