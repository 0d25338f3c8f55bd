"""Sets and policies that include them are saved at once: no reply is ever stale, and nobody waits for ever."""

import json
from random import Random

import pytest

from policystore.accounts.models import Actor
from policystore.audit_log.models import HistoryEvent
from policystore.policies import compiler, endpoint_sets, never_allow
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.errors import (
    EditConflict,
    InvalidDocument,
    InvalidNeverAllow,
    NameTaken,
    NeverAllowGone,
    PolicyGone,
    SetConflict,
    SetInUse,
)
from policystore.policies.models import EndpointSet, NeverAllowHost, Policy
from policystore.policy_language.document import check, combined
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.policies.test_concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = ("alpha", "beta", "gamma")


def test_a_crowd_on_sets_and_policies_leaves_no_stale_reply():
    organization = factories.organization("octo-org")
    for name in NAMES:
        factories.endpoint_set(organization, name, f"{name}.example.com\n")
    for number in range(4):
        factories.policy(organization, f"p{number}", "egress-policy: block\nendpoint-sets: [alpha, beta]\n")

    def work(person):
        random, by = Random(person), Actor(f"person-{person}")
        for step in range(12):
            random.choice(CHANGES)(organization, random, by, step)

    together(work)
    sets = {found.name_key: tuple(found.endpoints) for found in EndpointSet.objects.all()}
    refused = compiler.never_allow_of(organization)
    for policy in Policy.objects.all():
        document = check(policy.text).document
        assert json.loads(policy.reply)["allowed_endpoints"] == list(combined(document, sets, refused).endpoints), (
            policy.name
        )
        used = set(policy.set_uses.values_list("endpoint_set__name_key", flat=True))
        assert used == {name.lower() for name in document.endpoint_sets}
        events = HistoryEvent.objects.filter(subject_type="policy", subject_id=policy.pk, kind="updated").order_by("pk")
        assert [event.version for event in events] == list(range(2, policy.version + 1))
        assert not events or events.last().reply_after == policy.reply


def _change_set(organization, random, by, step):
    found = EndpointSet.objects.get(organization=organization, name=random.choice(NAMES))
    text = f"{found.name}.example.com\n{by.name}-{step}.example.com\n"
    try:
        endpoint_sets.UpdateEndpointSet(
            endpoint_set=found, name=found.name, description="", text=text, expected_version=found.version
        ).apply(by=by)
    except (SetConflict, InvalidDocument):
        return


def _change_policy(organization, random, by, step):
    policy = random.choice(Policy.objects.order_by("pk"))
    names = random.sample(NAMES, random.randint(0, 3))
    text = f"egress-policy: block # {by.name} {step}\nendpoint-sets: [{', '.join(names)}]\n"
    try:
        policies.UpdatePolicy(
            policy=policy, name=policy.name, description="", text=text, expected_version=policy.version
        ).apply(by=by)
    except (EditConflict, PolicyGone):
        return


def _create_policy(organization, random, by, step):
    text = f"egress-policy: block\nendpoint-sets: {random.choice(NAMES)}\n"
    factories.policy(organization, f"{by.name}-{step}", text)


def _attach(organization, random, by, step):
    policy = random.choice(Policy.objects.order_by("pk"))
    scope = Scope.for_repository("octo-org", f"{by.name}-{step}")
    attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=by)


def _never_allow(organization, random, by, step):
    entry = NeverAllowHost.objects.filter(organization=organization).order_by("pk").last()
    try:
        if entry and random.random() < 0.5:
            never_allow.RemoveNeverAllow(entry=entry).apply(by=by)
        else:
            host = f"{random.choice(NAMES)}.example.com"
            never_allow.add(organization=organization, host=host, reason="test", by=by)
    except (InvalidNeverAllow, NeverAllowGone):
        return


CHANGES = (_change_set, _change_policy, _create_policy, _attach, _never_allow)


def test_a_set_that_is_deleted_while_policies_begin_to_include_it_is_either_kept_or_unknown():
    organization = factories.organization("octo-org")
    npm = factories.endpoint_set(organization)

    def work(person):
        try:
            if person == 0:
                endpoint_sets.delete(endpoint_set=npm, by=Actor("zoe"))
                return "deleted"
            factories.policy(organization, f"p{person}", "egress-policy: block\nendpoint-sets: npm\n")
        except SetInUse:
            return "kept"
        except (InvalidDocument, NameTaken):
            return "unknown"
        return "included"

    done, *others = together(work)
    assert (done, set(others)) in [("deleted", {"unknown"}), ("kept", {"included"})]
    assert EndpointSet.objects.exists() == (done == "kept")
    assert Policy.objects.count() == others.count("included")
