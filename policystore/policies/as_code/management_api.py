"""Changes over the management API, made by the same actions as people's changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, TypeVar

from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import Actor, ApiKey
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.policies.approvals import requests as change_requests
from policystore.policies.approvals.commands import Change, NeedsApproval, has_to_wait
from policystore.policies.as_code.terraform_schema import Wanted
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.errors import EditConflict, NameTaken, PolicyError, PolicyGone, ScopesTaken
from policystore.policies.models import ChangeRequest, PendingDetach, Policy
from policystore.policy_language import editor, endpoint_sets
from policystore.policy_language.document import PolicyDocument, check, read_reply, written_endpoints
from policystore.policy_language.scopes import Scope
from policystore.policy_language.values import SWITCH_FIELDS, SWITCHES

Result = TypeVar("Result")

ATTEMPTS = 5
DETACH_DELAY: Final = timedelta(minutes=10)
DETACHED_AT_ONCE = 100


def save(*, organization: Organization, name: str, values: Mapping[str, object], by: Actor) -> Policy:
    """Create the policy, or change just the keys of its text that differ from `values`; it stays attached.

    Raises InvalidName or InvalidDocument, and EditConflict when others keep changing the policy at the same time.
    """
    return _retry(lambda: _save(organization, name, values, by=by), EditConflict, NameTaken, PolicyGone)


def attach(*, policy: Policy, wanted: Wanted, key: ApiKey) -> ChangeRequest | None:
    """Attach the policy to more scopes; a policy that holds one of them loses it. Returns the request if this waits.

    Together with a detach of the same key that is pending, it is one change: the policy loses only those scopes that it
    does not get again. Raises ForeignScope and PolicyGone.
    """
    by = actor_of(key)
    try:
        # Another key may attach its policy to one of the scopes at the same time; the later one wins.
        _retry(lambda: _attach(policy, wanted, key, by=by), ScopesTaken)
    except NeedsApproval as waiting:
        return _ask(waiting.change, policy, key, by=by)
    return None


def detach(*, policy: Policy, key: ApiKey, at: datetime | None = None) -> bool:
    """Detach the policy from all scopes; under four eyes, keep that for later. Returns whether it is pending.

    The Terraform provider changes attachments by a detach and an attach. Were the first to wait for approval alone, the
    scopes would have no policy until the second is approved. Raises PolicyGone.
    """
    now, by = at or timezone.now(), actor_of(key)
    with transaction.atomic():
        current = policies.locked(policy)
        if not has_to_wait(by, current.organization):
            attachments.DetachPolicy(policy=current).apply(by=by, at=now)
            return False
        held = sorted(current.attachments.values_list("scope_key", flat=True))
        values = {"scopes": held, "due_at": now + DETACH_DELAY}
        if held:
            PendingDetach.objects.update_or_create(policy=current, key=key, defaults=values)
        return bool(held)


def delete(*, policy: Policy, key: ApiKey) -> ChangeRequest | None:
    """Delete the policy; a pending detach of the same key is part of it. Returns the request if this waits.

    Raises PolicyGone.
    """
    by = actor_of(key)
    try:
        policies.DeletePolicy(policy=policy).apply(by=by)
    except NeedsApproval as waiting:
        return _ask(waiting.change, policy, key, by=by)
    return None


def is_pending(*, policy: Policy, key: ApiKey) -> bool:
    """True if this key's detach of the policy is pending until the attach that replaces it."""
    return PendingDetach.objects.filter(policy=policy, key=key).exists()


def detach_due(*, at: datetime | None = None) -> int:
    """Detach, or request to detach, what no attach has followed in time; returns how many."""
    now = at or timezone.now()
    due = PendingDetach.objects.filter(due_at__lte=now).order_by("due_at", "pk")
    ids = list(due.values_list("pk", flat=True)[:DETACHED_AT_ONCE])
    for pk in ids:
        _detach_due(pk, at=now)
    return len(ids)


def actor_of(key: ApiKey) -> Actor:
    """The key as the history names it."""
    return Actor(name=key.name, kind="api_key")


def _retry(change: Callable[[], Result], *refusals: type[PolicyError]) -> Result:
    """Make a change; try again where others changed the same at the same time. Raises what the last try does."""
    for _ in range(ATTEMPTS - 1):
        with suppress(*refusals):
            return change()
    return change()


def _save(organization: Organization, name: str, values: Mapping[str, object], *, by: Actor) -> Policy:
    current = Policy.objects.filter(organization=organization, name_key=name.strip().lower()).first()
    if current is None:
        text = editor.new_document(_set_keys(values))
        return policies.create(organization=organization, name=name, text=text, by=by)
    return policies.UpdatePolicy(
        policy=current,
        name=current.name,
        description=current.description,
        text=_changed(current, values),
        expected_version=current.version,
    ).apply(by=by)


def _attach(policy: Policy, wanted: Wanted, key: ApiKey, *, by: Actor) -> None:
    with transaction.atomic():
        for name in wanted.repositories:
            inventory.add_repository(organization=policy.organization, name=name)
        pending = PendingDetach.objects.filter(policy=policy, key=key).first()
        attachments.ModifyAttachments(
            policy=policy,
            add=wanted.scopes,
            remove=_scopes(pending.scopes) if pending else (),
            replacing=None,
            requested=wanted.body,
        ).apply(by=by)
        if pending is not None:
            pending.delete()


def _detach_due(pk: int, *, at: datetime) -> None:
    rows = PendingDetach.objects.select_related("policy__organization", "key").filter(pk=pk, due_at__lte=at)
    found = rows.first()
    if found is None:
        return
    by = actor_of(found.key)
    with transaction.atomic():
        current = policies.locked(found.policy)
        # An attach may have included it since: that deletes it while it has the policy locked.
        pending = rows.first()
        if pending is None:
            return
        held = current.attachments.filter(scope_key__in=pending.scopes).values_list("scope_key", flat=True)
        try:
            with transaction.atomic():
                attachments.ModifyAttachments(policy=current, remove=_scopes(held)).apply(by=by, at=at)
        except NeedsApproval as waiting:
            change_requests.ask(change=waiting.change, by=by, at=at)
        pending.delete()


def _ask(change: Change, policy: Policy, key: ApiKey, *, by: Actor) -> ChangeRequest:
    """Request the change, which contains what this key has asked to detach before."""
    with transaction.atomic():
        request = change_requests.ask(change=change, by=by)
        PendingDetach.objects.filter(policy=policy, key=key).delete()
    return request


def _scopes(keys: Iterable[str]) -> list[Scope]:
    return [Scope.from_key(key) for key in keys]


def _set_keys(values: Mapping[str, object]) -> dict[str, object]:
    """For a new document: what is off or absent need not be written."""
    return {key: value for key, value in values.items() if value is not None and value is not False}


def _changed(policy: Policy, values: Mapping[str, object]) -> str:
    text = policy.text
    document = check(text).document
    if document is None:
        # The text has errors by today's rules, so no single key of it can be changed. Keep what runners get.
        reply = read_reply(policy.reply)
        kept = {key: reply.get(field, False) for field, key in zip(SWITCH_FIELDS, SWITCHES, strict=True)}
        return editor.new_document(_set_keys({**kept, editor.SETS: endpoint_sets.names_in(text), **values}))
    current = _values_of(document, text)
    changes = {key: value for key, value in values.items() if value != current[key]}
    try:
        return editor.set_values(text, changes) if changes else text
    except editor.CannotEdit:
        # Written in braces, its keys have no lines of their own; what the text says is kept, how it says it is not.
        return editor.new_document(_set_keys({**current, editor.SETS: list(document.endpoint_sets), **changes}))


def _values_of(document: PolicyDocument, text: str) -> dict[str, object]:
    lockdown = document.lockdown
    return {
        "egress-policy": document.egress_policy,
        "allowed-endpoints": written_endpoints(text),
        **{key: getattr(document, field) for field, key in zip(SWITCH_FIELDS, SWITCHES, strict=True)},
        "lockdown-mode": lockdown and {"enabled": lockdown.enabled, "detections": list(lockdown.detections)},
    }
