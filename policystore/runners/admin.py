"""The tables of runners in the Django admin, read-only."""

from __future__ import annotations

from django.contrib import admin

from policystore.inventory.admin import LookOnly
from policystore.runners.models import BlocklistEntry, JobRun, LastFetch, RateLimitUse, VerifiedRun


@admin.register(JobRun)
class JobRunAdmin(LookOnly):
    """Job runs of all organizations."""

    list_display = ["repository", "workflow", "run_id", "correlation_id", "policy_name", "fetched_at"]
    list_select_related = ["organization"]
    search_fields = ["repository", "run_id", "correlation_id"]


@admin.register(BlocklistEntry)
class BlocklistEntryAdmin(LookOnly):
    """What organizations, and the operator for all of them, block."""

    list_display = ["endpoint", "kind", "organization", "reason", "created_by"]
    search_fields = ["endpoint"]


@admin.register(LastFetch)
class LastFetchAdmin(LookOnly):
    """What the latest job of each workflow was served."""

    list_display = ["workflow", "at", "policy_version", "egress_policy"]
    list_select_related = ["workflow", "workflow__repository", "workflow__repository__organization"]


@admin.register(RateLimitUse)
class RateLimitUseAdmin(LookOnly):
    """How much of each rate limit is used."""

    list_display = ["name", "used", "ends_at"]
    search_fields = ["name"]


@admin.register(VerifiedRun)
class VerifiedRunAdmin(LookOnly):
    """Workflow runs that a token from GitHub verifies."""

    list_display = ["repository", "run_id", "organization", "at"]
    search_fields = ["repository", "run_id"]
    list_select_related = ["organization"]
