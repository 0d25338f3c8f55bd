"""The tables of runners in the Django admin, read-only."""

from django.contrib import admin

from policystore.inventory.admin import LookOnly
from policystore.runners.models import BlocklistEntry, JobRun, LastFetch, RateLimitUse, VerifiedRun

admin.site.register(
    JobRun,
    LookOnly,
    list_display=["repository", "workflow", "run_id", "correlation_id", "policy_name", "fetched_at"],
    list_select_related=["organization"],
    search_fields=["repository", "run_id", "correlation_id"],
)
admin.site.register(
    BlocklistEntry,
    LookOnly,
    list_display=["endpoint", "kind", "organization", "reason", "created_by"],
    search_fields=["endpoint"],
)
admin.site.register(
    LastFetch,
    LookOnly,
    list_display=["workflow", "at", "policy_version", "egress_policy"],
    list_select_related=["workflow", "workflow__repository", "workflow__repository__organization"],
)
admin.site.register(RateLimitUse, LookOnly, list_display=["name", "used", "ends_at"], search_fields=["name"])
admin.site.register(
    VerifiedRun,
    LookOnly,
    list_display=["repository", "run_id", "organization", "at"],
    search_fields=["repository", "run_id"],
    list_select_related=["organization"],
)
