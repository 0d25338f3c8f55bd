"""Integrations and what was sent to them, in the Django admin, to look at."""

from __future__ import annotations

from django.contrib import admin

from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from policystore.inventory.admin import LookOnly

# Integrations of all organizations, without their secrets.
admin.site.register(
    Integration,
    LookOnly,
    list_display=["name", "organization", "kind", "enabled", "failures", "paused_until", "changed_at", "deleted_at"],
    list_filter=["kind", "enabled"],
    list_select_related=["organization"],
    search_fields=["name", "organization__key"],
    exclude=["encrypted_secrets", "config"],
)
# Messages, delivered, waiting and given up.
admin.site.register(
    OutboxMessage,
    LookOnly,
    list_display=["webhook_id", "integration", "kind", "state", "attempt_count", "next_at", "created_at"],
    list_filter=["state"],
    list_select_related=["integration"],
    search_fields=["webhook_id"],
)
admin.site.register(
    DeliveryAttempt,
    LookOnly,
    list_display=["message", "number", "started_at", "duration_ms", "succeeded", "status", "error"],
    list_select_related=["message"],
)
