"""What systems do over the management API, by the same actions as people's changes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from django.db import transaction

from policystore.accounts.actors import Actor
from policystore.documents import edit, set_names
from policystore.documents.document import PolicyDocument, check, written_endpoints
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.policies.actions import attachments, policies
from policystore.policies.errors import EditConflict, NameTaken, PolicyGone, ScopesTaken
from policystore.policies.models import Policy
from policystore.policies.provider import SWITCHES, Wanted

ATTEMPTS = 5


def save(*, organization: Organization, name: str, values: Mapping[str, object], by: Actor) -> Policy:
    """Create the policy, or change just the keys of its text that differ from `values`; it stays attached.

    Raises InvalidName or InvalidDocument, and EditConflict when others keep changing the policy at the same time.
    """
    for attempt in range(ATTEMPTS):
        current = Policy.objects.filter(organization=organization, name_key=name.strip().lower()).first()
        try:
            if current is None:
                text = edit.new_document(_set_keys(values))
                return policies.create(organization=organization, name=name, text=text, by=by)
            return policies.update(
                policy=current,
                name=current.name,
                description=current.description,
                text=_changed(current, values),
                expected_version=current.version,
                by=by,
            )
        except (EditConflict, NameTaken, PolicyGone):
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def attach(*, policy: Policy, wanted: Wanted, by: Actor, replace: bool) -> None:
    """Attach the policy to more scopes. Raises ScopesTaken for those that hold another one, unless told to replace."""
    with transaction.atomic():
        for name in wanted.repositories:
            inventory.add_repository(organization=policy.organization, name=name)
        try:
            attachments.modify(policy=policy, add=wanted.scopes, by=by)
        except ScopesTaken as refusal:
            if not replace:
                raise
            agreed = {taken.scope.key: taken.policy_id for taken in refusal.taken}
            attachments.modify(policy=policy, add=wanted.scopes, by=by, replacing=agreed)


def _set_keys(values: Mapping[str, object]) -> dict[str, object]:
    """For a new document: what is off or absent need not be written."""
    return {key: value for key, value in values.items() if value is not None and value is not False}


def _changed(policy: Policy, values: Mapping[str, object]) -> str:
    text = policy.text
    document = check(text).document
    if document is None:
        # An earlier release saved it: nothing in it can be changed by itself, and what it says is what runners get.
        reply = json.loads(policy.reply)
        kept = {key: reply[field] for field, key in SWITCHES.items()}
        return edit.new_document(_set_keys({**kept, edit.SETS: set_names.names_in(text), **values}))
    current = _values_of(document, text)
    changes = {key: value for key, value in values.items() if value != current[key]}
    try:
        return edit.set_values(text, changes) if changes else text
    except edit.CannotEdit:
        # Written in braces, its keys have no lines of their own; what the text says is kept, how it says it is not.
        return edit.new_document(_set_keys({**current, edit.SETS: list(document.endpoint_sets), **changes}))


def _values_of(document: PolicyDocument, text: str) -> dict[str, object]:
    lockdown = document.lockdown
    return {
        "egress-policy": document.egress_policy,
        "allowed-endpoints": written_endpoints(text),
        "disable-sudo": document.disable_sudo,
        "disable-sudo-and-containers": document.disable_sudo_and_containers,
        "disable-file-monitoring": document.disable_file_monitoring,
        "disable-telemetry": document.disable_telemetry,
        "lockdown-mode": None
        if lockdown is None
        else {"enabled": lockdown.enabled, "detections": list(lockdown.detections)},
    }
