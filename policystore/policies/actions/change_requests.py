"""Asks for changes, approves, declines and withdraws them; each step has its history event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policystore.accounts.actors import Actor
from policystore.accounts.models import ApiKey, KeyKind
from policystore.policies import change_verbs, event_types
from policystore.policies.actions import history
from policystore.policies.actions.four_eyes import Change, NeedsApproval
from policystore.policies.errors import PolicyError
from policystore.policies.models import ChangeRequest

Status = ChangeRequest.Status
MAX_COMMENT = 500


class CannotDecide(Exception):
    """The request cannot be settled this way; `str()` says why."""


def ask(*, change: Change, by: Actor, at: datetime | None = None) -> ChangeRequest:
    """Keep the change until somebody decides; asking for the same again gives the request that is open already."""
    now = at or timezone.now()
    subject_type, subject_id, subject_name = change.subject
    with transaction.atomic():
        waiting = ChangeRequest.objects.select_for_update().filter(
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
            shown=dict(change.shown),
            requested_by=by.name,
            requested_by_kind=by.kind,
            requested_by_user=by.user_id,
            requested_at=now,
        )
        _record(event_types.CHANGE_REQUESTED, request, by, now)
    return request


def approve(*, request: ChangeRequest, by: Actor, comment: str = "", at: datetime | None = None) -> ChangeRequest:
    """Make the change, in the name of who asked for it, and tell who approved.

    Raises CannotDecide when the request is settled, is one's own, or no longer fits what is there now.
    """
    now = at or timezone.now()
    with transaction.atomic():
        current = _locked(request)
        bar = bar_of(current, by)
        if bar:
            raise CannotDecide(bar)
        _refuse_outdated(current)
        asker = Actor(current.requested_by, current.requested_by_kind, approved_by=by.name)
        try:
            with transaction.atomic():
                change_verbs.run(current, by=asker)
        except PolicyError as refusal:
            raise CannotDecide(f"The change no longer fits: {refusal} Decline it and ask anew.") from refusal
        return _settle(current, Status.APPROVED, event_types.CHANGE_APPROVED, by=by, comment=comment, at=now)


def bar_of(request: ChangeRequest, by: Actor) -> str:
    """Why this person cannot approve the request; empty where they may.

    A key is shown once, to who makes it: what was asked for with it counts as asked for by its maker.
    """
    if is_from(request, by):
        return "Somebody else has to approve what you asked for."
    if _made_key(request, by):
        return f"You made the key {request.requested_by} that asked for this, so somebody else has to approve it."
    return ""


def is_from(request: ChangeRequest, by: Actor) -> bool:
    """Whether this person or key made the request. People are compared by id: their login may pass to another."""
    if request.requested_by_kind != by.kind:
        return False
    if request.requested_by_user is not None and by.user_id is not None:
        return request.requested_by_user == by.user_id
    return request.requested_by == by.name


def _made_key(request: ChangeRequest, by: Actor) -> bool:
    makers = _keys_of(request).values_list("created_by_user", "created_by")
    return any(user == by.user_id if user is not None and by.user_id else name == by.name for user, name in makers)


def makers_of_key(request: ChangeRequest) -> list[str]:
    """Who made the management keys, live or revoked, of the name that asked; nobody where a person asked."""
    return sorted(set(_keys_of(request).values_list("created_by", flat=True)))


def _keys_of(request: ChangeRequest) -> QuerySet[ApiKey]:
    if request.requested_by_kind != "api_key":
        return ApiKey.objects.none()
    return ApiKey.objects.filter(
        organization=request.organization_id, kind=KeyKind.MANAGEMENT, name=request.requested_by
    )


def _refuse_outdated(request: ChangeRequest) -> None:
    """Raise CannotDecide where the change would not be the one that was asked for and shown."""
    asking = Actor(request.requested_by, request.requested_by_kind, asking=True)
    try:
        with transaction.atomic():
            change_verbs.run(request, by=asking)
            # Whatever was done in place of asking is undone.
            transaction.set_rollback(True)
    except NeedsApproval as waiting:
        change = waiting.change
        if (_plain(change.payload), _plain(change.shown)) == (request.payload, request.shown):
            return
    except PolicyError as refusal:
        raise CannotDecide(f"The change no longer fits: {refusal} Decline it and ask anew.") from refusal
    raise CannotDecide("The change no longer fits: what it would do is not what was shown. Decline it and ask anew.")


def _plain(values: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(values), cls=DjangoJSONEncoder))


def decline(*, request: ChangeRequest, by: Actor, comment: str = "", at: datetime | None = None) -> ChangeRequest:
    """Leave everything as it is. Raises CannotDecide when the request is settled already."""
    with transaction.atomic():
        current = _locked(request)
        kind = event_types.CHANGE_DECLINED
        return _settle(current, Status.DECLINED, kind, by=by, comment=comment, at=at or timezone.now())


def withdraw(*, request: ChangeRequest, by: Actor, comment: str = "", at: datetime | None = None) -> ChangeRequest:
    """Take back what one asked for. Raises CannotDecide when it is settled, or was somebody else's."""
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
            f"{current.decided_by} settled this request already: {current.get_status_display().lower()}."
        )
    return current


def _settle(request: ChangeRequest, status: str, kind: str, *, by: Actor, comment: str, at: datetime) -> ChangeRequest:
    request.status, request.decided_by, request.decided_at = status, by.name, at
    request.comment = comment.replace("\0", "").strip()[:MAX_COMMENT]
    request.save(update_fields=["status", "decided_by", "decided_at", "comment"])
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
        told={"change_request_id": request.pk, "change": change_verbs.label_of(request)},
        details={
            "change_request": request.pk,
            "change": change_verbs.label_of(request),
            "requested_by": request.requested_by,
        },
    )
