"""What a bundle may have beside policies, sets and attachments: never-allow hosts, exceptions and staged versions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from policystore.accounts.actor import Actor
from policystore.inventory.models import Organization
from policystore.policies.actions import exceptions, never_allow, staged
from policystore.policies.models import NeverAllowHost, Policy, PolicyException, StagedVersion
from policystore.policies.plans import HostChange, PolicyChange


def allow_again(organization: Organization, changes: Iterable[HostChange], *, by: Actor, at: datetime) -> None:
    """Take off the list what the bundle no longer has, before policies are written that may list it."""
    for change in changes:
        if change.after is None:
            never_allow.remove(entry=_entry(organization, change), by=by, at=at)


def forbid(organization: Organization, changes: Iterable[HostChange], *, by: Actor, at: datetime) -> None:
    """Put on the list what is new, after policies were written that list it no more; and give reasons anew."""
    for change in changes:
        if change.after and change.before:
            never_allow.explain(entry=_entry(organization, change), reason=change.after.reason, by=by, at=at)
        elif change.after:
            host, reason = change.after.host, change.after.reason
            never_allow.add(organization=organization, host=host, reason=reason, by=by, at=at)


def write_exceptions(organization: Organization, change: PolicyChange, *, by: Actor, at: datetime) -> None:
    """End and add what differs; one whose owner, reason or end changes ends, and begins anew."""
    removed, added = change.exceptions_removed, change.exceptions_added
    if not removed and not added:
        return
    policy = _policy(organization, change.name)
    endpoints = [one.endpoint for one in removed]
    for row in PolicyException.objects.active(at).filter(policy=policy, endpoint__in=endpoints).order_by("pk"):
        row.policy = policy
        exceptions.end(exception=row, by=by, at=at)
    for one in added:
        asked = {"endpoint": one.endpoint, "reason": one.reason, "owner": one.owner}
        exceptions.add(policy=policy, expires_at=one.until, by=by, at=at, **asked)


def write_staged(organization: Organization, change: PolicyChange, *, by: Actor, at: datetime) -> None:
    """Stage, discard, or change canaries, as far as it differs."""
    if change.staged is None:
        return
    before, after = change.staged
    policy = _policy(organization, change.name)
    current = StagedVersion.objects.filter(pk=policy.pk).first()
    event = current.event_id if current else None
    if after.is_nothing:
        if event is not None:
            staged.discard(policy=policy, expected_event=event, by=by, at=at)
        return
    if before.text != after.text or event is None:
        version = policy.version
        made = staged.stage(policy=policy, text=after.text, live_version=version, expected_event=event, by=by, at=at)
        event = made.event_id
    staged.set_canaries(policy=policy, scopes=after.canaries, expected_event=event, by=by, at=at)


def _policy(organization: Organization, name: str) -> Policy:
    return Policy.objects.select_related("organization").get(organization=organization, name_key=name.lower())


def _entry(organization: Organization, change: HostChange) -> NeverAllowHost:
    rows = NeverAllowHost.objects.select_related("organization")
    return rows.get(organization=organization, host=change.host)
