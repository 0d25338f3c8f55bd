"""Integrations and what was sent to them, in the Django admin, to look at."""

from __future__ import annotations

from django.contrib import admin

from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from policystore.inventory.admin import LookOnly


@admin.register(Integration)
class IntegrationAdmin(LookOnly):
    """Integrations of all organizations, without their secrets."""

    list_display = ["name", "organization", "kind", "enabled", "failures", "paused_until", "changed_at", "deleted_at"]
    list_filter = ["kind", "enabled"]
    list_select_related = ["organization"]
    search_fields = ["name", "organization__key"]
    exclude = ["encrypted_secrets", "config"]


@admin.register(OutboxMessage)
class OutboxMessageAdmin(LookOnly):
    """Messages, delivered, waiting and given up."""

    list_display = ["webhook_id", "integration", "kind", "state", "attempt_count", "next_at", "created_at"]
    list_filter = ["state"]
    list_select_related = ["integration"]
    search_fields = ["webhook_id"]


@admin.register(DeliveryAttempt)
class DeliveryAttemptAdmin(LookOnly):
    """Attempts."""

    list_display = ["message", "number", "started_at", "duration_ms", "succeeded", "status", "error"]
    list_select_related = ["message"]
