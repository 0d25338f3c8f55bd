"""Endpoint sets: create, update and delete them; what runners get of the policies that include one changes with it."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.audit_log import event_types, history
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.approvals.commands import Change, Command, Prepared
from policystore.policies.compiler import Effect
from policystore.policies.core import name_validation
from policystore.policies.errors import InvalidDocument, SetConflict, SetGone, SetInUse
from policystore.policies.models import EndpointSet, Policy, StagedVersion
from policystore.policies.search import search_words
from policystore.policy_language import endpoint_sets
from policystore.policy_language.endpoint_sets import check_set


def create(
    *, organization: Organization, name: str, text: str, by: Actor, description: str = "", at: datetime | None = None
) -> EndpointSet:
    """Create a set that no policy includes yet. Raises InvalidName, InvalidDescription, NameTaken, InvalidDocument."""
    now = at or timezone.now()
    made = EndpointSet(organization=organization, version=1, created_at=now, created_by=by.name)
    made.changed_at, made.changed_by = now, by.name
    _fill(made, name=name, description=description, text=text)
    with transaction.atomic():
        compiler.change_rules(organization.pk)
        name_validation.save_named(made, force_insert=True)
        _record(event_types.SET_CREATED, made, by=by, at=now)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateEndpointSet(Command[tuple[EndpointSet, list[Effect]]]):
    """Save a new version of a set and recompile every policy that includes it.

    `apply` returns the set and what that did to each policy; saving what is stored already changes nothing and leaves
    no event. `agreed` are the ids of the policies that the person has agreed to change; None agrees to all. `apply`
    raises SetConflict when `expected_version` is no longer the current one, SetGone, PoliciesWouldChange for
    policies beyond the agreed, SetInUse for another name of a set in use, CannotRecompile, and InvalidName,
    InvalidDescription, NameTaken or InvalidDocument.
    """

    verb: ClassVar = "endpoint_set.update"
    label: ClassVar = "Update endpoint set"
    permission: ClassVar = "policies.change_endpointset"

    endpoint_set: EndpointSet
    name: str
    description: str
    text: str
    expected_version: int
    agreed: Collection[int] | None = None

    @classmethod
    def from_json(cls, organization: Organization, payload: Mapping[str, Any]) -> UpdateEndpointSet:
        """Restore the command. Raises SetGone."""
        endpoint_set = EndpointSet.objects.filter(organization=organization, pk=payload["set_id"]).first()
        if endpoint_set is None:
            raise SetGone("The endpoint set was deleted in the meantime.")
        values = {name: payload[name] for name in ("name", "description", "text", "expected_version")}
        return cls(endpoint_set=endpoint_set, **values)

    def touched_policies(self) -> set[int]:
        """The policies that include the set, live or staged."""
        staged_ids = {staged.policy_id for staged in staged_with(self.endpoint_set)}
        return staged_ids.union(policies_with(self.endpoint_set).values_list("pk", flat=True))

    def prepare(self, *, by: Actor, at: datetime) -> Prepared[tuple[EndpointSet, list[Effect]]]:
        """Save the set and recompile the policies. It needs approval if one of them blocks and would change."""
        current = _locked(self.endpoint_set)
        if current.version != self.expected_version:
            raise SetConflict(current)
        before = copy.copy(current)
        _fill(current, name=self.name, description=self.description, text=self.text)
        if _content(current) == _content(before):
            return Prepared(self._change(before, current), False, lambda: (before, []))
        if before.name_key != current.name_key:
            _refuse_in_use(before, "give the set another name")
        current.version, current.changed_at, current.changed_by = current.version + 1, at, by.name
        name_validation.save_named(current)
        compiled = compiler.recompile(current.organization, policies_with(current), agreed=self.agreed)
        restaged = compiler.recompile_staged(current.organization, staged_with(current))
        blocks = any(item.effect.blocks for item in compiled if item.effect is not None) or any(
            staged.egress_policy == Policy.Mode.BLOCK and staged.canaries.exists() for staged in restaged
        )

        def write() -> tuple[EndpointSet, list[Effect]]:
            _record(event_types.SET_UPDATED, current, before=before, by=by, at=at)
            reason = f"Endpoint set {current.name} changed."
            cause = {"kind": "endpoint_set", "id": current.pk, "name": current.name, "version": current.version}
            effects = compiler.save(compiled, by=by, at=at, reason=reason, cause=cause)
            for staged in restaged:
                compiler.save_staged(staged, by=by, at=at, reason=reason)
            return current, effects

        return Prepared(self._change(before, current), blocks, write)

    def _change(self, before: EndpointSet, after: EndpointSet) -> Change:
        payload = {
            "set_id": after.pk,
            "name": after.name,
            "description": after.description,
            "text": after.text,
            "expected_version": before.version,
        }
        subject = (HistoryEvent.SubjectType.ENDPOINT_SET, after.pk, before.name)
        return Change(self.verb, after.organization, subject, payload)


def delete(*, endpoint_set: EndpointSet, by: Actor, at: datetime | None = None) -> None:
    """Delete a set; its history stays. Raises SetGone, and SetInUse while policies include it."""
    with transaction.atomic():
        current = _locked(endpoint_set)
        _refuse_in_use(current, "delete the set")
        _record(event_types.SET_DELETED, current, before=current, by=by, at=at or timezone.now())
        current.delete()


def _locked(endpoint_set: EndpointSet) -> EndpointSet:
    compiler.change_rules(endpoint_set.organization_id)
    rows = EndpointSet.objects.select_related("organization")
    current = rows.filter(pk=endpoint_set.pk, organization_id=endpoint_set.organization_id).first()
    if current is None:
        raise SetGone(f"The endpoint set {endpoint_set.name} was deleted in the meantime.")
    return current


def _fill(endpoint_set: EndpointSet, *, name: str, description: str, text: str) -> None:
    checked = check_set(text, never_allow=compiler.never_allow_of(endpoint_set.organization))
    if checked.endpoints is None:
        raise InvalidDocument(checked.problems, what="set")
    endpoint_set.name = name_validation.set_name(name)
    endpoint_set.name_key = endpoint_set.name.lower()
    endpoint_set.description = name_validation.description(description)
    endpoint_set.text, endpoint_set.endpoints = text, list(checked.endpoints)
    endpoint_set.endpoint_count = len(checked.endpoints)


def _content(endpoint_set: EndpointSet) -> tuple[str, str, str]:
    return endpoint_set.name, endpoint_set.description, endpoint_set.text


def _refuse_in_use(endpoint_set: EndpointSet, refused: str) -> None:
    live = policies_with(endpoint_set).order_by("name_key").values_list("name", flat=True)
    names = list(dict.fromkeys([*live, *(staged.policy.name for staged in staged_with(endpoint_set))]))
    if names:
        raise SetInUse(names, refused=refused)


def _record(
    kind: str, endpoint_set: EndpointSet, *, by: Actor, at: datetime, before: EndpointSet | None = None
) -> None:
    gone = kind == event_types.SET_DELETED
    history.record(
        kind,
        organization=endpoint_set.organization,
        subject=(HistoryEvent.SubjectType.ENDPOINT_SET, endpoint_set.pk, endpoint_set.name),
        by=by,
        at=at,
        version=endpoint_set.version,
        payload={"endpoint_set": endpoint_set.name, "endpoint_set_id": endpoint_set.pk},
        name_before=before.name if before and before.name != endpoint_set.name else "",
        text_before=before.text if before else "",
        text_after="" if gone else endpoint_set.text,
        description_before=before.description if before else "",
        description_after="" if gone else endpoint_set.description,
    )


def sets_of(organization: Organization, search: str = "") -> QuerySet[EndpointSet]:
    """The organization's sets by name, with how many policies include each as `policy_count`; texts are left out.

    `search` matches words in names, descriptions and texts.
    """
    rows = EndpointSet.objects.filter(organization=organization).defer("text", "endpoints")
    for word in search_words(search.lower()):
        rows = rows.filter(Q(name_key__contains=word) | Q(description__icontains=word) | Q(text__icontains=word))
    return rows.annotate(policy_count=Count("uses")).order_by("name_key")


def policies_with(endpoint_set: EndpointSet) -> QuerySet[Policy]:
    """The policies that include the set."""
    return Policy.objects.filter(organization=endpoint_set.organization_id, set_uses__endpoint_set=endpoint_set.pk)


def sets_in(policy: Policy) -> QuerySet[EndpointSet]:
    """The sets that the policy includes, by name; texts are left out."""
    rows = EndpointSet.objects.filter(organization=policy.organization_id, uses__policy=policy.pk)
    return rows.defer("text", "endpoints").order_by("name_key")


def staged_with(endpoint_set: EndpointSet) -> list[StagedVersion]:
    """The staged versions that include the set; an organization has few, and their texts say it."""
    rows = StagedVersion.objects.filter(policy__organization=endpoint_set.organization_id)
    rows = rows.select_related("policy__organization").order_by("pk")
    return [staged for staged in rows if endpoint_set.name_key in endpoint_sets.keys_in(staged.text)]
