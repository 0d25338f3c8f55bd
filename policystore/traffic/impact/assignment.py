"""Which policy the runs of each workflow get: by the current attachments, or by changed ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from policystore.inventory.models import Organization
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.scopes import candidate_keys
from policystore.traffic.impact.replay import NO_POLICY, Ruling
from policystore.traffic.impact.run_bitmaps import WorkflowKey
from policystore.traffic.verdicts import allow_list_of

SCOPES_PER_QUERY = 5000


@dataclass(frozen=True, slots=True)
class Assignment:
    """The scopes of each workflow key, most specific first, and the policy ids of the scopes that hold one."""

    scopes: Mapping[WorkflowKey, tuple[str, ...]]
    holders: Mapping[str, int]

    def changed(self, *, add: Mapping[str, int], remove: Collection[str] = ()) -> Assignment:
        """The assignment with policies attached to more scopes and removed from others."""
        kept = {scope: policy for scope, policy in self.holders.items() if scope not in remove}
        return Assignment(self.scopes, {**kept, **add})

    def without(self, policy_id: int) -> Assignment:
        """The assignment with a policy detached from all scopes."""
        return self.changed(add={}, remove={scope for scope, holder in self.holders.items() if holder == policy_id})

    def scope_of(self, key: WorkflowKey) -> str:
        """The scope whose policy the key's runs get, or empty if they get none."""
        return next((scope for scope in self.scopes[key] if scope in self.holders), "")

    def policy_of(self, key: WorkflowKey) -> int | None:
        """The id of the policy that the key's runs get."""
        return self.holders.get(self.scope_of(key))

    def keys_at(self, scopes: Collection[str]) -> set[WorkflowKey]:
        """The keys whose runs get the policy of one of these scopes."""
        return {key for key in self.scopes if self.scope_of(key) in scopes}

    def keys_in(self, scopes: Collection[str]) -> dict[str, set[WorkflowKey]]:
        """The keys in each of these scopes, whatever policy their runs get. Scopes without keys are left out."""
        keys: dict[str, set[WorkflowKey]] = {}
        for key, candidates in self.scopes.items():
            for scope in candidates:
                if scope in scopes:
                    keys.setdefault(scope, set()).add(key)
        return keys


def current(organization: Organization, keys: Iterable[WorkflowKey]) -> Assignment:
    """The assignment by the current attachments."""
    scopes = {
        key: tuple(scope for scope in candidate_keys(organization.key, *key) if scope) for key in sorted(set(keys))
    }
    candidates = sorted({scope for of_key in scopes.values() for scope in of_key})
    holders: dict[str, int] = {}
    for start in range(0, len(candidates), SCOPES_PER_QUERY):
        part = candidates[start : start + SCOPES_PER_QUERY]
        rows = Attachment.objects.filter(organization=organization, scope_key__in=part)
        holders.update(rows.order_by().values_list("scope_key", "policy_id"))
    return Assignment(scopes, holders)


def policies(organization: Organization, ids: Iterable[int | None]) -> dict[int, Policy]:
    """The organization's policies with these ids, by id."""
    rows = Policy.objects.filter(organization=organization, pk__in={pk for pk in ids if pk is not None})
    return {policy.pk: policy for policy in rows.defer("text", "search_text")}


def ruling_of(policy: Policy | None) -> Ruling:
    """The ruling for runs that get this policy, or none."""
    if policy is None:
        return NO_POLICY
    return Ruling.of(policy.egress_policy, allow_list_of(policy.served_reply))
