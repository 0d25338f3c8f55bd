"""The changes that can wait for a second person; one more is one more line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from policystore.accounts.actors import Actor
from policystore.documents.scopes import Scope
from policystore.inventory.models import Organization
from policystore.policies.actions import (
    attachments,
    endpoint_sets,
    exceptions,
    four_eyes,
    never_allow,
    policies,
    staged,
)
from policystore.policies.errors import NeverAllowGone, PolicyError, PolicyGone, SetGone
from policystore.policies.models import ChangeRequest, EndpointSet, NeverAllowHost, Policy

Run = Callable[[Organization, Mapping[str, Any], Actor], None]


@dataclass(frozen=True, slots=True)
class Verb:
    """How a kind of change is called, made, and what the person needs who approves it."""

    label: str
    run: Run
    permission: str = "policies.change_policy"


def _update(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    policies.update(
        policy=_policy(organization, payload),
        name=payload["name"],
        description=payload["description"],
        text=payload["text"],
        expected_version=payload["expected_version"],
        reason=payload.get("reason", ""),
        details=payload.get("details", {}),
        by=by,
    )


def _delete(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    policies.delete(policy=_policy(organization, payload), by=by)


def _attach(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    attachments.modify(
        policy=_policy(organization, payload),
        add=[Scope.from_key(key) for key in payload["add"]],
        remove=[Scope.from_key(key) for key in payload["remove"]],
        replacing=payload["replacing"],
        by=by,
    )


def _detach(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    attachments.detach_all(policy=_policy(organization, payload), by=by)


def _stage(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    asked = {name: payload[name] for name in ("text", "live_version", "expected_event")}
    staged.stage(policy=_policy(organization, payload), by=by, **asked)


def _set_canaries(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    scopes = [Scope.from_key(key) for key in payload["scopes"]]
    policy = _policy(organization, payload)
    staged.set_canaries(policy=policy, scopes=scopes, expected_event=payload["expected_event"], by=by)


def _promote(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    staged.promote(policy=_policy(organization, payload), expected_event=payload["expected_event"], by=by)


def _update_set(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    found = EndpointSet.objects.filter(organization=organization, pk=payload["set_id"]).first()
    if found is None:
        raise SetGone("The endpoint set was deleted in the meantime.")
    values = {name: payload[name] for name in ("name", "description", "text", "expected_version", "agreed")}
    endpoint_sets.update(endpoint_set=found, by=by, **values)


def _remove_never_allow(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    found = NeverAllowHost.objects.filter(organization=organization, pk=payload["entry_id"]).first()
    if found is None:
        raise NeverAllowGone("The never-allow host was taken off the list in the meantime.")
    never_allow.remove(entry=found, by=by)


def _add_exception(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    exceptions.add(
        policy=_policy(organization, payload),
        endpoint=payload["endpoint"],
        reason=payload["reason"],
        expires_at=datetime.fromisoformat(payload["expires_at"]),
        owner=payload.get("owner", ""),
        by=by,
    )


def _four_eyes_off(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    four_eyes.switch_off(organization=organization, by=by)


def _four_eyes_for_keys(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    four_eyes.keys_alone(organization=organization, by=by)


VERBS: Final[Mapping[str, Verb]] = {
    policies.UPDATE: Verb("Update policy", _update),
    policies.DELETE: Verb("Delete policy", _delete, "policies.delete_policy"),
    attachments.MODIFY: Verb("Modify attachment", _attach),
    attachments.DETACH: Verb("Detach policy", _detach),
    staged.STAGE: Verb("Stage another version for canaries", _stage),
    staged.CANARIES: Verb("Change canary scopes", _set_canaries),
    staged.PROMOTE: Verb("Promote the staged version", _promote),
    exceptions.ADD: Verb("Add an exception", _add_exception),
    endpoint_sets.UPDATE: Verb("Update endpoint set", _update_set, "policies.change_endpointset"),
    never_allow.REMOVE: Verb("Remove never-allow host", _remove_never_allow, "policies.change_neverallowhost"),
    four_eyes.SWITCH_OFF: Verb("Switch off four eyes", _four_eyes_off, "policies.change_foureyes"),
    four_eyes.KEYS_ALONE: Verb("Keep four eyes for keys alone", _four_eyes_for_keys, "policies.change_foureyes"),
}


def run(request: ChangeRequest, *, by: Actor) -> None:
    """Make the change that was asked for. Raises what its action raises, and PolicyError for an unknown verb."""
    verb = VERBS.get(request.verb)
    if verb is None:
        raise PolicyError("This release does not know this kind of change.")
    verb.run(request.organization, request.payload, by)


def label_of(request: ChangeRequest) -> str:
    """What pages call the change."""
    verb = VERBS.get(request.verb)
    return verb.label if verb else request.verb


def permission_of(request: ChangeRequest) -> str:
    """What the person needs who decides."""
    verb = VERBS.get(request.verb)
    return verb.permission if verb else "policies.change_policy"


def _policy(organization: Organization, payload: Mapping[str, Any]) -> Policy:
    found = Policy.objects.filter(organization=organization, pk=payload["policy_id"]).first()
    if found is None:
        raise PolicyGone("The policy was deleted in the meantime.")
    return found
