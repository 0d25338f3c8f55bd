"""Reads job runs, for the runner protocol and the pages of runs."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.utils import timezone

from policystore.inventory.models import Organization
from policystore.policies.search import search_words
from policystore.runners.models import JobRun
from policystore.web.pagination import Page, newest_first


def known_job_run(owner_key: str, repository: str, correlation_id: str, run_id: str | None = None) -> JobRun | None:
    """Return the latest job run with this correlation id in the last JOB_RUN_OPEN_HOURS, or None.

    Runners ask without a key, so a correlation id of another repository or organization counts as unknown.
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
    """Return a page of an organization's job runs, or those of one of its repositories or workflows.

    Each word of `search` must occur in the repository, workflow, job or policy, or be the run id.
    """
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
    """Return the job runs that last fetched with this key, newest first."""
    return JobRun.objects.filter(api_key_id=key_id).order_by("-id")[:count]
