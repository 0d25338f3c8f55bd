"""The changes that can wait for approval. Adding one takes one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from policystore.accounts.models import Actor
from policystore.policies.approvals import effects
from policystore.policies.approvals.command import Command
from policystore.policies.approvals.effects import Effect
from policystore.policies.approvals.four_eyes import LimitFourEyesToKeys, SwitchOffFourEyes
from policystore.policies.core.actions import DeletePolicy, UpdatePolicy
from policystore.policies.core.attachments import DetachPolicy, ModifyAttachments
from policystore.policies.endpoint_sets.actions import UpdateEndpointSet
from policystore.policies.errors import PolicyError
from policystore.policies.exceptions.actions import AddException
from policystore.policies.models import Attachment, ChangeRequest, EndpointSet
from policystore.policies.never_allow.actions import RemoveNeverAllow
from policystore.policies.staging.actions import PromoteStaged, SetCanaries, StageVersion

# Every kind of change that can wait.
COMMANDS: Final[Mapping[str, type[Command[Any]]]] = {
    command.verb: command
    for command in (
        UpdatePolicy,
        DeletePolicy,
        ModifyAttachments,
        DetachPolicy,
        StageVersion,
        SetCanaries,
        PromoteStaged,
        AddException,
        UpdateEndpointSet,
        RemoveNeverAllow,
        SwitchOffFourEyes,
        LimitFourEyesToKeys,
    )
}


def apply(request: ChangeRequest, *, by: Actor) -> Effect:
    """Make the change that was asked for and return what it changed. Call it in a transaction, and roll it back where
    the effect is not the one that was approved.

    Raises what the command raises, and PolicyError for an unknown verb.
    """
    command = COMMANDS.get(request.verb)
    if command is None:
        raise PolicyError("This release does not know this kind of change.")
    organization, payload = request.organization, request.payload
    touched = command.touched_policies(organization, payload)
    served = effects.serving(organization, _scopes_of(request))
    set_before = _set_text(request)
    before = effects.states(touched)
    command.from_json(organization, payload).apply(by=by)
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
    if request.verb not in (DeletePolicy.verb, ModifyAttachments.verb, DetachPolicy.verb):
        return set()
    attached = Attachment.objects.filter(organization=request.organization, policy=request.payload["policy_id"])
    held = attached.values_list("scope_key", flat=True)
    return {*held, *request.payload.get("add", ())}


def _set_text(request: ChangeRequest) -> str | None:
    if request.verb != UpdateEndpointSet.verb:
        return None
    rows = EndpointSet.objects.filter(organization=request.organization, pk=request.payload["set_id"])
    return rows.values_list("text", flat=True).first()


def label_of(request: ChangeRequest) -> str:
    """The change's label on pages."""
    command = COMMANDS.get(request.verb)
    return command.label if command else request.verb


def permission_of(request: ChangeRequest) -> str:
    """The permission needed to decide on the request."""
    command = COMMANDS.get(request.verb)
    return command.permission if command else Command.permission
