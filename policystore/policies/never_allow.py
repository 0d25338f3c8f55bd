"""Adds hosts to an organization's never-allow list and removes them; policies that list them are recompiled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.inventory.models import Organization
from policystore.policies import compiler, exceptions
from policystore.policies.approvals.commands import Change, Command, Prepared
from policystore.policies.compiler import Compiled, Effect
from policystore.policies.errors import InvalidNeverAllow, NeverAllowGone
from policystore.policies.models import NeverAllowHost, Policy, PolicyException, StagedVersion
from policystore.policy_language.never_allow import NoHost, read_host

MAX_REASON = 200


def add(
    *,
    organization: Organization,
    host: str,
    reason: str,
    by: Actor,
    agreed: Collection[int] | None = None,
    at: datetime | None = None,
) -> tuple[NeverAllowHost, list[Effect]]:
    """Add a never-allow host; returns the entry and what that did to each policy.

    It never waits for approval: it can only take endpoints away, and may be urgent. `agreed` are the ids of the
    policies that the person has agreed to change; None agrees to all. A policy that cannot be compiled now also loses
    the host.
    Raises InvalidNeverAllow and PoliciesWouldChange.
    """
    now, host, reason = at or timezone.now(), _host(host), _reason(reason)
    with transaction.atomic():
        compiler.change_rules(organization.pk)
        if known := NeverAllowHost.objects.filter(organization=organization, host=host).first():
            raise InvalidNeverAllow("host", f"{host} is already a never-allow host: {known.reason}")
        entry = NeverAllowHost.objects.create(
            organization=organization, host=host, reason=reason, added_at=now, added_by=by.name
        )
        compiled = _recompile(entry, agreed)
        _record(event_types.NEVER_ALLOW_ADDED, entry, by=by, at=now)
        return entry, _save(compiled, entry, by=by, at=now, what_happened="was added")


def explain(*, entry: NeverAllowHost, reason: str, by: Actor, at: datetime | None = None) -> None:
    """Change the reason of a host on the list. Raises NeverAllowGone and InvalidNeverAllow."""
    reason = _reason(reason)
    with transaction.atomic():
        current = _locked(entry)
        if current.reason != reason:
            current.reason = reason
            current.save(update_fields=["reason"])
            _record(event_types.NEVER_ALLOW_EXPLAINED, current, by=by, at=at or timezone.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNeverAllow(Command[list[Effect]]):
    """Take a host off the never-allow list; `apply` returns what that did to each policy.

    `agreed` are the ids of the policies that the person has agreed to change; None agrees to all. A policy that cannot
    be compiled now stays without the host. `apply` raises NeverAllowGone and PoliciesWouldChange.
    """

    verb: ClassVar = "never_allow.remove"
    label: ClassVar = "Remove never-allow host"
    permission: ClassVar = "policies.change_neverallowhost"

    entry: NeverAllowHost
    agreed: Collection[int] | None = None

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> RemoveNeverAllow:
        """Restore the command. Raises NeverAllowGone."""
        entry = NeverAllowHost.objects.filter(organization=organization, pk=payload["entry_id"]).first()
        if entry is None:
            raise NeverAllowGone("The never-allow host was taken off the list in the meantime.")
        return cls(entry=entry)

    def touched_policies(self) -> set[int]:
        """The policies that may list the host, have an exception, or have a staged version."""
        organization = self.entry.organization
        listing = candidates(organization, self.entry.host).values_list("pk", flat=True)
        excepting = PolicyException.objects.active().filter(organization=organization)
        staging = StagedVersion.objects.filter(policy__organization=organization)
        return {*listing, *excepting.values_list("policy_id", flat=True), *staging.values_list("pk", flat=True)}

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[list[Effect]]:
        """Delete the entry and recompile the policies that may list it. It always needs approval."""
        current = _locked(self.entry)
        NeverAllowHost.objects.filter(pk=current.pk).delete()
        compiled = _recompile(current, self.agreed)
        payload = {"entry_id": current.pk, "host": current.host, "why": current.reason}
        change = Change(self.verb, current.organization, history.organization_subject(current.organization), payload)

        def write() -> list[Effect]:
            _record(event_types.NEVER_ALLOW_REMOVED, current, by=by, at=at)
            return _save(compiled, current, by=by, at=at, what_happened="was taken off the list")

        return Prepared(change, True, write)


def _locked(entry: NeverAllowHost) -> NeverAllowHost:
    compiler.change_rules(entry.organization_id)
    rows = NeverAllowHost.objects.select_related("organization")
    current = rows.filter(pk=entry.pk, organization_id=entry.organization_id).first()
    if current is None:
        raise NeverAllowGone(f"{entry.host} is no longer a never-allow host.")
    return current


def _recompile(entry: NeverAllowHost, agreed: Collection[int] | None) -> list[Compiled]:
    listing = candidates(entry.organization, entry.host)
    return compiler.recompile(entry.organization, listing, agreed=agreed, as_stored=True)


def _record(kind: str, entry: NeverAllowHost, *, by: Actor, at: datetime) -> None:
    history.record(
        kind,
        organization=entry.organization,
        subject=history.organization_subject(entry.organization),
        by=by,
        at=at,
        reason=entry.reason,
        details={"host": entry.host},
    )


def _save(
    compiled: list[Compiled], entry: NeverAllowHost, *, by: Actor, at: datetime, what_happened: str
) -> list[Effect]:
    cause = {"kind": "never_allow", "id": entry.pk, "name": entry.host}
    reason = f"Never-allow host {entry.host} {what_happened}."
    effects = compiler.save(compiled, by=by, at=at, reason=reason, cause=cause)
    exceptions.follow_rules(entry.organization)
    staged = StagedVersion.objects.filter(policy__organization=entry.organization).prefetch_related("canaries")
    staged = staged.select_related("policy__organization").order_by("pk")
    for one in compiler.recompile_staged(entry.organization, staged, as_stored=True):
        compiler.save_staged(one, by=by, at=at, reason=reason)
    return effects


def candidates(organization: Organization, host: str) -> QuerySet[Policy]:
    """Every policy that may list the host or a wildcard that covers it; the words searched hold what was left out."""
    words = Q(search_text__contains=host.removeprefix("*.")) | Q(search_text__contains="*")
    return Policy.objects.filter(words, organization=organization)


def _host(text: str) -> str:
    try:
        return read_host(text)
    except NoHost as refusal:
        raise InvalidNeverAllow("host", str(refusal)) from refusal


def _reason(text: str) -> str:
    text = " ".join(text.split())
    if not text:
        raise InvalidNeverAllow("reason", "Enter a reason. People whose policies list the host will see it.")
    if len(text) > MAX_REASON or not text.isprintable():
        raise InvalidNeverAllow("reason", f"Enter a reason of at most {MAX_REASON} printable characters.")
    return text
