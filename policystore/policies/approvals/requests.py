"""Requests changes, approves, declines and withdraws them; each step has its history event.

An approval is of what the change serves (see `effects`), not of what was typed: its digest is computed when the change
is requested, whenever the request is shown, and once more in the transaction that makes the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policystore.accounts.models import Actor, ApiKey, KeyKind
from policystore.audit_log import event_types, history
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.approvals import effects
from policystore.policies.approvals.commands import Change, Command, LimitFourEyesToKeys, SwitchOffFourEyes
from policystore.policies.approvals.effects import Effect
from policystore.policies.core.actions import DeletePolicy, UpdatePolicy
from policystore.policies.core.attachments import DetachPolicy, ModifyAttachments
from policystore.policies.endpoint_sets import UpdateEndpointSet
from policystore.policies.errors import PolicyError
from policystore.policies.exceptions import AddException
from policystore.policies.models import Attachment, ChangeRequest, EndpointSet
from policystore.policies.never_allow import RemoveNeverAllow
from policystore.policies.staging import PromoteStaged, SetCanaries, StageVersion

Status = ChangeRequest.Status
MAX_COMMENT = 500
CHANGED = (
    "Nothing was changed: what this change would serve is no longer what was shown. Review it as it is now, then "
    "approve it again."
)
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


class CannotDecide(Exception):
    """The request cannot be settled this way; `str()` says why."""


def open_requests(organization: Organization) -> QuerySet[ChangeRequest]:
    """The requests that wait for a decision."""
    return ChangeRequest.objects.filter(organization=organization, status=Status.OPEN)


@dataclass(frozen=True, slots=True)
class Preview:
    """The result of approving an open request now: the effect, or why the change cannot be made any more."""

    effect: Effect | None
    refusal: str = ""


def ask(*, change: Change, by: Actor, at: datetime | None = None) -> ChangeRequest:
    """Store the change until it is decided; requesting the same again returns the request that is already open."""
    now = at or timezone.now()
    subject_type, subject_id, subject_name = change.subject
    with transaction.atomic():
        # A request that is being decided does not count as open: waiting for it could deadlock with its approval.
        waiting = ChangeRequest.objects.select_for_update(skip_locked=True).filter(
            organization=change.organization, status=Status.OPEN, subject_id=subject_id, verb=change.verb
        )
        for known in waiting:
            if is_from(known, by) and known.payload == dict(change.payload):
                return known
        request = ChangeRequest.objects.create(
            organization=change.organization,
            verb=change.verb,
            subject_type=subject_type,
            subject_id=subject_id,
            subject_name=subject_name,
            payload=dict(change.payload),
            requested_by=by.name,
            requested_by_kind=by.kind,
            requested_by_user=by.user_id,
            requested_at=now,
        )
        effect = preview(request=request).effect
        if effect is not None:
            request.shown, request.digest = dict(effect.shown), effect.digest
            request.save(update_fields=["shown", "digest"])
        _record(event_types.CHANGE_REQUESTED, request, by, now)
    return request


def preview(*, request: ChangeRequest) -> Preview:
    """Make the change, and undo it: what it would do now."""
    try:
        with transaction.atomic():
            effect = _apply(request, by=_actor(request, approved_by="preview"))
            transaction.set_rollback(True)
    except PolicyError as refusal:
        return Preview(None, str(refusal))
    return Preview(effect)


def approve(
    *, request: ChangeRequest, by: Actor, digest: str = "", comment: str = "", at: datetime | None = None
) -> ChangeRequest:
    """Make the change, in the name of who asked for it, and record who approved it.

    `digest` names the effect that the approver saw; where it is missing, the one of the time of the request. Raises
    CannotDecide when the request is settled, is one's own, can no longer be made, or would now have another effect;
    nothing is changed then.
    """
    now = at or timezone.now()
    with transaction.atomic():
        current = _locked(request)
        bar = bar_of(current, by)
        if bar:
            raise CannotDecide(bar)
        # From here on nothing that the effect depends on can change: policies, exceptions, sets, never-allow hosts.
        compiler.change_rules(current.organization_id)
        try:
            with transaction.atomic():
                effect = _apply(current, by=_actor(current, approved_by=by.name))
        except PolicyError as refusal:
            raise CannotDecide(cannot_be_made(str(refusal))) from refusal
        if effect.digest != (digest or current.digest):
            raise CannotDecide(CHANGED)
        current.shown, current.digest = dict(effect.shown), effect.digest
        return _settle(current, Status.APPROVED, event_types.CHANGE_APPROVED, by=by, comment=comment, at=now)


def cannot_be_made(refusal: str) -> str:
    """Why a request cannot be approved, from what its action says."""
    return f"This change can no longer be made: {refusal} Decline it and request it again."


def _actor(request: ChangeRequest, *, approved_by: str) -> Actor:
    by, kind = request.requested_by, request.requested_by_kind
    return Actor(by, kind, approved_by=approved_by, user_id=request.requested_by_user)


def bar_of(request: ChangeRequest, by: Actor) -> str:
    """Why this person cannot approve the request; empty where they may.

    A key is shown once, to who makes it: what was asked for with it counts as asked for by its maker.
    """
    if is_from(request, by):
        return "You cannot approve your own request."
    if _made_key(request, by):
        return f"You cannot approve a request made with {request.requested_by}, a management key that you created."
    return ""


def is_from(request: ChangeRequest, by: Actor) -> bool:
    """True if this person or key made the request. People are compared by id: their login may pass to another."""
    if request.requested_by_kind != by.kind:
        return False
    if request.requested_by_user is not None and by.user_id is not None:
        return request.requested_by_user == by.user_id
    return request.requested_by == by.name


def _made_key(request: ChangeRequest, by: Actor) -> bool:
    makers = _keys_of(request).values_list("created_by_user", "created_by")
    return any(user == by.user_id if user is not None and by.user_id else name == by.name for user, name in makers)


def makers_of_key(request: ChangeRequest) -> list[str]:
    """The creators of the management keys, live or revoked, with the requester's name; empty for a person."""
    return sorted(set(_keys_of(request).values_list("created_by", flat=True)))


def _keys_of(request: ChangeRequest) -> QuerySet[ApiKey]:
    if request.requested_by_kind != "api_key":
        return ApiKey.objects.none()
    keys = ApiKey.objects.filter(organization=request.organization_id, kind=KeyKind.MANAGEMENT)
    return keys.filter(name=request.requested_by)


def decline(*, request: ChangeRequest, by: Actor, comment: str = "", at: datetime | None = None) -> ChangeRequest:
    """Leave everything as it is. Raises CannotDecide when the request is settled already."""
    with transaction.atomic():
        current = _locked(request)
        kind = event_types.CHANGE_DECLINED
        return _settle(current, Status.DECLINED, kind, by=by, comment=comment, at=at or timezone.now())


def withdraw(*, request: ChangeRequest, by: Actor, comment: str = "", at: datetime | None = None) -> ChangeRequest:
    """Withdraw one's own request. Raises CannotDecide if it is settled or another person's."""
    with transaction.atomic():
        current = _locked(request)
        if not is_from(current, by):
            raise CannotDecide(f"Only {current.requested_by} can withdraw this; decline it instead.")
        kind = event_types.CHANGE_WITHDRAWN
        return _settle(current, Status.WITHDRAWN, kind, by=by, comment=comment, at=at or timezone.now())


def _locked(request: ChangeRequest) -> ChangeRequest:
    rows = ChangeRequest.objects.select_for_update(of=("self",)).select_related("organization")
    current = rows.get(pk=request.pk)
    if not current.is_open:
        raise CannotDecide(
            f"{current.decided_by} has already settled this request: {current.get_status_display().lower()}."
        )
    return current


def _settle(request: ChangeRequest, status: str, kind: str, *, by: Actor, comment: str, at: datetime) -> ChangeRequest:
    request.status, request.decided_by, request.decided_at = status, by.name, at
    request.comment = comment.replace("\0", "").strip()[:MAX_COMMENT]
    request.save(update_fields=["status", "decided_by", "decided_at", "comment", "shown", "digest"])
    _record(kind, request, by, at)
    return request


def _record(kind: str, request: ChangeRequest, by: Actor, at: datetime) -> None:
    history.record(
        kind,
        organization=request.organization,
        subject=(request.subject_type, request.subject_id, request.subject_name),
        by=by,
        at=at,
        reason=request.comment,
        payload={
            "change_request_id": request.pk,
            "change": label_of(request),
            "subject": request.subject_name,
            "decision": "" if request.is_open else str(request.get_status_display()).lower(),
        },
        details={"change_request": request.pk, "change": label_of(request), "requested_by": request.requested_by},
    )


def _apply(request: ChangeRequest, *, by: Actor) -> Effect:
    """Make the change that was asked for and return what it changed. Call it in a transaction, and roll it back where
    the effect is not the one that was approved.

    Raises what the command raises, and PolicyError for an unknown verb.
    """
    known = COMMANDS.get(request.verb)
    if known is None:
        raise PolicyError("This release does not know this kind of change.")
    command = known.from_json(request.organization, request.payload)
    return effects.effect_of(
        lambda: command.apply(by=by),
        organization=request.organization,
        request={"verb": request.verb, "payload": request.payload},
        touched=command.touched_policies(),
        scopes=_scopes_of(request),
        set_text=lambda: _set_text(request),
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
    return COMMANDS.get(request.verb, Command).permission
