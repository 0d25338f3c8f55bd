"""Which policy the runs of each place get: by what is attached now, and by what would be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from policystore.inventory.models import Organization
from policystore.policies.models import Attachment, Policy
from policystore.policy_language.endpoint_matcher import AllowList
from policystore.policy_language.replay import NO_POLICY, Ruling
from policystore.policy_language.run_bitmaps import Place
from policystore.policy_language.scopes import candidate_keys

KEYS_PER_QUERY = 5000


@dataclass(frozen=True, slots=True)
class Ladder:
    """The scopes of each place, most specific first, and which of all these scopes hold a policy (its id)."""

    scopes: Mapping[Place, tuple[str, ...]]
    holders: Mapping[str, int]

    def changed(self, *, add: Mapping[str, int], remove: Collection[str] = ()) -> Ladder:
        """As it would be with policies attached to more scopes and taken from others."""
        kept = {key: policy for key, policy in self.holders.items() if key not in remove}
        return Ladder(self.scopes, {**kept, **add})

    def without(self, policy_id: int) -> Ladder:
        """As it would be with a policy detached from everything."""
        return self.changed(add={}, remove={key for key, holder in self.holders.items() if holder == policy_id})

    def scope_of(self, place: Place) -> str:
        """The scope whose policy the place's runs get; empty where there is none."""
        return next((key for key in self.scopes[place] if key in self.holders), "")

    def policy_of(self, place: Place) -> int | None:
        """The policy that they get."""
        return self.holders.get(self.scope_of(place))

    def places_at(self, keys: Collection[str]) -> set[Place]:
        """The places whose runs get the policy of one of these scopes."""
        return {place for place in self.scopes if self.scope_of(place) in keys}

    def reaching(self, keys: Collection[str]) -> dict[str, set[Place]]:
        """The places that belong to each of these scopes, whichever policy their runs get; for those that have any."""
        found: dict[str, set[Place]] = {}
        for place, scopes in self.scopes.items():
            for key in scopes:
                if key in keys:
                    found.setdefault(key, set()).add(place)
        return found


def ladder(organization: Organization, places: Iterable[Place]) -> Ladder:
    """The ladder as things are now."""
    scopes = {
        place: tuple(key for key in candidate_keys(organization.key, *place) if key) for place in sorted(set(places))
    }
    wanted = sorted({key for keys in scopes.values() for key in keys})
    holders: dict[str, int] = {}
    for start in range(0, len(wanted), KEYS_PER_QUERY):
        rows = Attachment.objects.filter(
            organization=organization, scope_key__in=wanted[start : start + KEYS_PER_QUERY]
        )
        holders.update(rows.order_by().values_list("scope_key", "policy_id"))
    return Ladder(scopes, holders)


def policies(organization: Organization, ids: Iterable[int | None]) -> dict[int, Policy]:
    """These policies of the organization, by id."""
    rows = Policy.objects.filter(organization=organization, pk__in={found for found in ids if found is not None})
    return {policy.pk: policy for policy in rows.defer("text", "search_text")}


def ruling_of(policy: Policy | None) -> Ruling:
    """What runs are judged by that get this policy."""
    if policy is None:
        return NO_POLICY
    return Ruling.of(policy.egress_policy, AllowList.from_reply(policy.served_reply))
