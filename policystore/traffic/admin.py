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


@admin.register(NetworkEvent)
class NetworkEventAdmin(LookOnly):
    list_display = ("host", "port", "status", "organization", "occurred_at")


@admin.register(RunEndpoint)
class RunEndpointAdmin(LookOnly):
    list_display = ("host", "port", "calls", "organization")


@admin.register(JobEndpoint)
class JobEndpointAdmin(LookOnly):
    list_display = ("host", "port", "repository", "workflow", "job", "calls")


@admin.register(EarlyRun)
class EarlyRunAdmin(LookOnly):
    list_display = ("job_run", "workflow", "job", "since", "look_at")
    list_select_related = ("job_run",)


@admin.register(RunBitmap)
class RunBitmapAdmin(LookOnly):
    list_display = ("number", "organization", "newest_at", "endpoints", "is_final")


@admin.register(BitmapProgress)
class BitmapProgressAdmin(LookOnly):
    list_display = ("seen_id", "caught_up_at")


@admin.register(StagedRun)
class StagedRunAdmin(LookOnly):
    list_display = ("event_id", "job_run", "began_at", "off_list_count")
    list_select_related = ("job_run",)


@admin.register(StagedProgress)
class StagedProgressAdmin(LookOnly):
    list_display = ("seen_id", "mark_id", "marked_at")
