"""The changes that can wait for approval. Adding one takes one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policystore.accounts.actor import Actor
from policystore.inventory.models import Organization
from policystore.policies.approvals import effects
from policystore.policies.approvals import rules as approvals
from policystore.policies.approvals.command import Command, policy_of
from policystore.policies.approvals.effects import Effect
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments, queries
from policystore.policies.endpoint_sets.actions import UpdateEndpointSet
from policystore.policies.errors import PolicyError
from policystore.policies.exceptions.actions import AddException
from policystore.policies.models import (
    Attachment,
    ChangeRequest,
    EndpointSet,
)
from policystore.policies.never_allow.actions import RemoveNeverAllow
from policystore.policies.staging.actions import PromoteStaged, SetCanaries, StageVersion
from policystore.policy_language.scopes import Scope

Run = Callable[[Organization, Mapping[str, Any], Actor], None]
Touches = Callable[[Organization, Mapping[str, Any]], set[int]]


@dataclass(frozen=True, slots=True)
class Verb:
    """A kind of change: its label, how to make it, the policies it can touch, and the permission to approve it."""

    label: str
    run: Run
    touches: Touches
    permission: str = "policies.change_policy"


def _update(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    policies.update(
        policy=policy_of(organization, payload),
        name=payload["name"],
        description=payload["description"],
        text=payload["text"],
        expected_version=payload["expected_version"],
        reason=payload.get("reason", ""),
        details=payload.get("details", {}),
        by=by,
    )


def _delete(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    policies.delete(policy=policy_of(organization, payload), by=by)


def _attach(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    attachments.modify(
        policy=policy_of(organization, payload),
        add=[Scope.from_key(key) for key in payload["add"]],
        remove=[Scope.from_key(key) for key in payload["remove"]],
        # The approver sees which policies lose their scopes now.
        replacing=None,
        requested=payload.get("requested"),
        by=by,
    )


def _detach(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    attachments.detach_all(policy=policy_of(organization, payload), by=by)


def _four_eyes_off(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    approvals.switch_off(organization=organization, by=by)


def _four_eyes_for_keys(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
    approvals.keys_alone(organization=organization, by=by)


def _its_policy(organization: Organization, payload: Mapping[str, Any]) -> set[int]:
    return {payload["policy_id"]}


def _its_policy_and_holders(organization: Organization, payload: Mapping[str, Any]) -> set[int]:
    holders = queries.holders(organization, payload["add"])
    return {payload["policy_id"], *(holder.policy_id for holder in holders.values())}


def _no_policy(organization: Organization, payload: Mapping[str, Any]) -> set[int]:
    return set()


def _verb_of(command: type[Command[Any]]) -> Verb:
    def run(organization: Organization, payload: Mapping[str, Any], by: Actor) -> None:
        command.from_json(organization, payload).apply(by=by)

    return Verb(command.label, run, command.touched_policies, command.permission)


VERBS: Final[Mapping[str, Verb]] = {
    policies.UPDATE: Verb("Update policy", _update, _its_policy),
    policies.DELETE: Verb("Delete policy", _delete, _its_policy, "policies.delete_policy"),
    attachments.MODIFY: Verb("Modify attachment", _attach, _its_policy_and_holders),
    attachments.DETACH: Verb("Detach policy", _detach, _its_policy),
    StageVersion.verb: _verb_of(StageVersion),
    SetCanaries.verb: _verb_of(SetCanaries),
    PromoteStaged.verb: _verb_of(PromoteStaged),
    AddException.verb: _verb_of(AddException),
    UpdateEndpointSet.verb: _verb_of(UpdateEndpointSet),
    RemoveNeverAllow.verb: _verb_of(RemoveNeverAllow),
    approvals.SWITCH_OFF: Verb("Switch off four eyes", _four_eyes_off, _no_policy, "policies.change_foureyes"),
    approvals.KEYS_ALONE: Verb(
        "Keep four eyes for keys alone", _four_eyes_for_keys, _no_policy, "policies.change_foureyes"
    ),
}


def apply(request: ChangeRequest, *, by: Actor) -> Effect:
    """Make the change that was asked for and return what it changed. Call it in a transaction, and roll it back where
    the effect is not the one that was approved.

    Raises what the change's action raises, and PolicyError for an unknown verb.
    """
    verb = VERBS.get(request.verb)
    if verb is None:
        raise PolicyError("This release does not know this kind of change.")
    organization, payload = request.organization, request.payload
    touched = verb.touches(organization, payload)
    served = effects.serving(organization, _scopes_of(request))
    set_before = _set_text(request)
    before = effects.states(touched)
    verb.run(organization, payload, by)
    after = effects.states(touched)
    keys = effects.changed_scopes(before, after)
    set_after = _set_text(request)
    return effects.effect(
        request={"verb": request.verb, "payload": payload},
        before=before,
        after=after,
        served_before={key: served.get(key, "") for key in keys},
        served_after=effects.serving(organization, keys),
        subject=payload.get("policy_id"),
        texts=None if set_before is None or set_after is None else (set_before, set_after),
    )


def _scopes_of(request: ChangeRequest) -> set[str]:
    """Every scope that the change can add or take away."""
    if request.verb not in (policies.DELETE, attachments.MODIFY, attachments.DETACH):
        return set()
    held = Attachment.objects.filter(policy=request.payload["policy_id"]).values_list("scope_key", flat=True)
    return {*held, *request.payload.get("add", ())}


def _set_text(request: ChangeRequest) -> str | None:
    if request.verb != UpdateEndpointSet.verb:
        return None
    rows = EndpointSet.objects.filter(organization=request.organization, pk=request.payload["set_id"])
    return rows.values_list("text", flat=True).first()


def label_of(request: ChangeRequest) -> str:
    """The change's label on pages."""
    verb = VERBS.get(request.verb)
    return verb.label if verb else request.verb


def permission_of(request: ChangeRequest) -> str:
    """The permission needed to decide on the request."""
    verb = VERBS.get(request.verb)
    return verb.permission if verb else "policies.change_policy"
