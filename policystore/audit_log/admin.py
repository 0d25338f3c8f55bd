"""The audit log in the Django admin, read-only."""

from __future__ import annotations

from django.contrib import admin

from policystore.audit_log.models import HistoryCheck, HistoryEvent, HistoryHead, IntegrityProblem
from policystore.inventory.admin import LookOnly

admin.site.register(
    HistoryEvent,
    LookOnly,
    list_display=["at", "owner", "subject_name", "kind", "actor", "version"],
    list_filter=["subject_type", "kind"],
    search_fields=["owner", "subject_name", "actor"],
)
# Where the sealed chain of each history stands.
admin.site.register(
    HistoryHead, LookOnly, list_display=["ledger", "owner", "sequence", "digest"], search_fields=["owner"]
)
# How far each chain of the history was verified.
admin.site.register(
    HistoryCheck,
    LookOnly,
    list_display=["owner", "ledger", "sequence", "checked_at", "problem"],
    search_fields=["owner"],
)
# Rows that the history does not account for.
admin.site.register(
    IntegrityProblem,
    LookOnly,
    list_display=["owner", "subject_type", "subject_id", "found_at"],
    search_fields=["owner"],
)
