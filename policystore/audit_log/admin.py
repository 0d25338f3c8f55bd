"""The audit log in the Django admin, read-only."""

from __future__ import annotations

from django.contrib import admin

from policystore.audit_log.models import HistoryCheck, HistoryEvent, HistoryHead, IntegrityProblem
from policystore.inventory.admin import LookOnly


@admin.register(HistoryEvent)
class HistoryEventAdmin(LookOnly):
    """History of all organizations."""

    list_display = ["at", "owner", "subject_name", "kind", "actor", "version"]
    list_filter = ["subject_type", "kind"]
    search_fields = ["owner", "subject_name", "actor"]


@admin.register(HistoryHead)
class HistoryHeadAdmin(LookOnly):
    """Where the sealed chain of each history stands."""

    list_display = ["ledger", "owner", "sequence", "digest"]
    search_fields = ["owner"]


@admin.register(HistoryCheck)
class HistoryCheckAdmin(LookOnly):
    """How far each chain of the history was verified."""

    list_display = ["owner", "ledger", "sequence", "checked_at", "problem"]
    search_fields = ["owner"]


@admin.register(IntegrityProblem)
class IntegrityProblemAdmin(LookOnly):
    """Rows that the history does not account for."""

    list_display = ["owner", "subject_type", "subject_id", "found_at"]
    search_fields = ["owner"]
