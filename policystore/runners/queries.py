"""What the runner protocol and the pages of runs read."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Lower
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies.search import search_words
from policystore.runners.blocklist_endpoints import can_be_served
from policystore.runners.models import BlocklistEntry, JobRun
from policystore.web.pagination import Page, newest_first


def known_job_run(owner_key: str, repository: str, correlation_id: str, run_id: str | None = None) -> JobRun | None:
    """The latest job run with this correlation id that the store saw not too long ago; None for all others.

    Runners ask without a key, so a correlation id of another repository or organization is one never seen.
    """
    oldest = timezone.now() - timedelta(hours=settings.JOB_RUN_OPEN_HOURS)
    rows = JobRun.objects.filter(
        organization__key=owner_key,
        repository__iexact=repository,
        correlation_id=correlation_id,
        first_seen_at__gte=oldest,
    ).select_related("organization")
    if run_id is not None:
        rows = rows.filter(run_id=run_id)
    return rows.order_by("-id").first() if correlation_id else None


BLOCKLIST_NAMES = {"ip_address": "ip_addresses", "domain": "domains", "wildcard_domain": "wildcard_domains"}


def blocklist(organization: Organization | None) -> dict[str, list[dict[str, str]]]:
    """The blocklist in the agent's shape: the store-wide entries, and those of the organization if there is one.

    An endpoint that both lists have comes once, with the store-wide reason. What the agent cannot block is left out.
    """
    rows = BlocklistEntry.objects.filter(Q(organization=organization) | Q(organization__isnull=True))
    reasons: dict[str, dict[str, str]] = {kind: {} for kind in BLOCKLIST_NAMES}
    by_owner = rows.order_by(F("organization").asc(nulls_first=True), "pk")
    for kind, endpoint, reason in by_owner.values_list("kind", "endpoint", "reason"):
        if can_be_served(kind, endpoint):
            reasons[kind].setdefault(endpoint, reason)
    return {
        name: [{"endpoint": endpoint, "reason": reason} for endpoint, reason in sorted(reasons[kind].items())]
        for kind, name in BLOCKLIST_NAMES.items()
    }


def sole_organization() -> Organization | None:
    """The organization of a store that has only one; None for all other stores."""
    first_two = list(Organization.objects.order_by("pk")[:2])
    return first_two[0] if len(first_two) == 1 else None


RUN_TAGS: dict[str, tuple[str, Q]] = {
    "": ("All", ~Q(verified_by="")),
    "blocked": ("Blocked call", Q(blocked_calls__gt=0)),
    "new": ("New endpoint", Q(new_endpoints__gt=0)),
    "no-policy": ("No policy", Q(policy_id__isnull=True) & ~Q(verified_by="")),
    "break-glass": ("Break glass", Q(break_glass=True)),
    "audit": ("Fell back to audit", Q(egress_policy="block", off_list_calls__gt=0)),
    "unverified": ("Unverified", Q(verified_by="")),
}


def run_page(
    organization: Organization,
    *,
    repository: str = "",
    workflow: str = "",
    search: str = "",
    tag: str = "",
    before: str = "",
    size: int = 50,
) -> Page[JobRun]:
    """Job runs of an organization, or of one repository or workflow of it, whose repository, workflow, job, policy or
    run id contains each word."""
    rows = JobRun.objects.filter(RUN_TAGS.get(tag, RUN_TAGS[""])[1], organization=organization)
    if repository:
        rows = rows.alias(folded=Lower("repository")).filter(folded=repository.lower())
    among = rows if workflow or search else None
    if workflow:
        rows = rows.filter(workflow=workflow)
    for word in search_words(search):
        rows = rows.filter(
            Q(repository__icontains=word)
            | Q(workflow__icontains=word)
            | Q(job__icontains=word)
            | Q(policy_name__icontains=word)
            | Q(run_id=word)
        )
    return newest_first(rows, size=size, before=before, among=among)


def last_calls(key_id: int, count: int = 5) -> QuerySet[JobRun]:
    """The job runs that last fetched with this key, newest first."""
    return JobRun.objects.filter(api_key_id=key_id).order_by("-id")[:count]
