"""Observed traffic in the admin: to look at."""

from django.contrib import admin

from policystore.inventory.admin import LookOnly
from policystore.traffic.models import JobEndpoint, NetworkEvent, RunEndpoint, RunSheet, SheetProgress


@admin.register(NetworkEvent)
class NetworkEventAdmin(LookOnly):
    list_display = ("host", "port", "status", "organization", "occurred_at")


@admin.register(RunEndpoint)
class RunEndpointAdmin(LookOnly):
    list_display = ("host", "port", "calls", "organization")


@admin.register(JobEndpoint)
class JobEndpointAdmin(LookOnly):
    list_display = ("host", "port", "repository", "workflow", "job", "calls")


@admin.register(RunSheet)
class RunSheetAdmin(LookOnly):
    list_display = ("number", "organization", "newest_at", "endpoints", "is_final")


@admin.register(SheetProgress)
class SheetProgressAdmin(LookOnly):
    list_display = ("seen_id", "caught_up_at")
