"""A comparison of what runners get with the history, while everything that it compares goes on changing."""

from __future__ import annotations

import threading
from datetime import timedelta
from time import monotonic

import pytest
from django.db import close_old_connections, connections
from django.utils import timezone

from policystore.accounts import api_keys
from policystore.integrity import comparing
from policystore.integrity.comparing import Comparison
from policystore.policies import break_glass, endpoint_sets, exceptions, never_allow
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Attachment, EndpointSet, Policy
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.attack.test_edited_rows import ANN, fill


@pytest.mark.django_db(transaction=True)
def test_changes_that_go_on_meanwhile_are_no_problem(monkeypatch):
    monkeypatch.setattr(comparing, "PASS_SECONDS", 0.0)
    organization = fill("octo-org", number=4)
    ends, failures = monotonic() + 3, []

    def change():
        try:
            while monotonic() < ends:
                change_everything(organization)
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    comparison, passes = Comparison(), 0
    try:
        while monotonic() < ends:
            close_old_connections()
            assert [problem for part in comparison.slices() for problem in part.problems] == []
            passes += 1
    finally:
        for thread in threads:
            thread.join()
    assert failures == []
    assert passes > 1


def change_everything(organization):
    """What people and systems change all day."""
    for policy in Policy.objects.filter(organization=organization, name__startswith="policy-"):
        text = f"{policy.text}# again\n" if len(policy.text) < 400 else policy.text.replace("# again\n", "")
        policies.UpdatePolicy(
            policy=policy, name=policy.name, description="", text=text, expected_version=policy.version
        ).apply(by=ANN)
        scope = Scope.for_repository("octo-org", f"moving{policy.pk % 2}")
        holder = Attachment.objects.filter(scope_key=scope.key).first()
        replacing = {scope.key: holder.policy_id} if holder else {}
        attachments.ModifyAttachments(policy=policy, add=[scope], replacing=replacing).apply(by=ANN)
    entry, _ = never_allow.add(organization=organization, host="host1.octo.org", reason="Bad", by=ANN)
    never_allow.RemoveNeverAllow(entry=entry).apply(by=ANN)
    found = EndpointSet.objects.get(organization=organization, name="npm")
    changed = f"registry.npm1.org:443\nn{found.version % 9}.octo.org:443\n"
    endpoint_sets.UpdateEndpointSet(
        endpoint_set=found, name="npm", description="", text=changed, expected_version=found.version
    ).apply(by=ANN)
    scope = Scope.for_repository("octo-org", "glass")
    begun = break_glass.start(organization=organization, scope=scope, hours=1, reason="An incident", by=ANN)
    break_glass.end(break_glass=begun, by=ANN)
    api_keys.regenerate(organization=organization, kind="vm", slot="secondary", by=ANN)
    policy = factories.policy(organization, "short-lived")
    added = exceptions.AddException(
        policy=policy, endpoint="late.octo.org:443", reason="Needed", expires_at=timezone.now() + timedelta(hours=1)
    ).apply(by=ANN)
    exceptions.end(exception=added, by=ANN)
    policies.DeletePolicy(policy=policy).apply(by=ANN)
