"""Queries of the endpoint set pages."""

from __future__ import annotations

from django.db.models import Count, Q, QuerySet

from policystore.inventory.models import Organization
from policystore.policies.models import EndpointSet, Policy, StagedVersion
from policystore.policies.search import search_words
from policystore.policy_language import endpoint_sets


def sets_of(organization: Organization, search: str = "") -> QuerySet[EndpointSet]:
    """The organization's sets by name, with how many policies include each as `policy_count`; texts are left out.

    `search` finds what stands in a name, a description or an endpoint.
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
    return [staged for staged in rows if _includes(staged.text, endpoint_set)]


def _includes(text: str, endpoint_set: EndpointSet) -> bool:
    return endpoint_set.name_key in endpoint_sets.keys_in(text)
