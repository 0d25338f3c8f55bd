"""Observed traffic in the admin, read-only."""

from django.contrib import admin

from policystore.inventory.admin import LookOnly
from policystore.traffic.models import (
    BitmapProgress,
    EarlyRun,
    JobEndpoint,
    NetworkEvent,
    RunBitmap,
    RunEndpoint,
    StagedProgress,
    StagedRun,
)

admin.site.register(NetworkEvent, LookOnly, list_display=("host", "port", "status", "organization", "occurred_at"))
admin.site.register(RunEndpoint, LookOnly, list_display=("host", "port", "calls", "organization"))
admin.site.register(JobEndpoint, LookOnly, list_display=("host", "port", "repository", "workflow", "job", "calls"))
admin.site.register(
    EarlyRun,
    LookOnly,
    list_display=("job_run", "workflow", "job", "since", "look_at"),
    list_select_related=("job_run",),
)
admin.site.register(RunBitmap, LookOnly, list_display=("number", "organization", "newest_at", "endpoints", "is_final"))
admin.site.register(BitmapProgress, LookOnly, list_display=("seen_id", "caught_up_at"))
admin.site.register(
    StagedRun,
    LookOnly,
    list_display=("event_id", "job_run", "began_at", "off_list_count"),
    list_select_related=("job_run",),
)
admin.site.register(StagedProgress, LookOnly, list_display=("seen_id", "mark_id", "marked_at"))
