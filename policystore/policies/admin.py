"""Policies in the Django admin: support staff look; changes go through the pages, so that the history records them."""

from __future__ import annotations

from django.contrib import admin

from policystore.inventory.admin import LookOnly
from policystore.policies.models import (
    Attachment,
    BreakGlass,
    CanaryScope,
    ChangeRequest,
    EndpointSet,
    EndpointSetUse,
    FourEyes,
    ManagedPolicy,
    NeverAllowHost,
    PendingDetach,
    Policy,
    PolicyException,
    RequestedAttachments,
    StagedVersion,
)

admin.site.register(
    Policy,
    LookOnly,
    list_display=["name", "organization", "egress_policy", "endpoint_count", "attachment_count", "changed_at"],
    list_filter=["egress_policy"],
    search_fields=["name_key", "organization__key"],
    exclude=["search_text", "name_key"],
)
admin.site.register(
    Attachment,
    LookOnly,
    list_display=["scope_key", "policy", "attached_at", "attached_by"],
    list_filter=["scope_type"],
    search_fields=["scope_key"],
)
admin.site.register(
    PolicyException,
    LookOnly,
    list_display=["policy", "endpoint", "owner", "added_at", "expires_at", "ended_at"],
    search_fields=["endpoint", "organization__key"],
)
admin.site.register(
    EndpointSet,
    LookOnly,
    list_display=["name", "organization", "endpoint_count", "changed_at", "changed_by"],
    search_fields=["name_key", "organization__key"],
    exclude=["name_key"],
)
admin.site.register(
    BreakGlass,
    LookOnly,
    list_display=["scope_key", "started_at", "started_by", "ends_at", "ended_at", "ended_by"],
    search_fields=["scope_key", "reason"],
)
admin.site.register(
    ManagedPolicy,
    LookOnly,
    list_display=["policy", "source", "applied_at", "applied_by"],
    search_fields=["policy__name_key", "source"],
)
admin.site.register(FourEyes, LookOnly, list_display=["organization", "since", "set_by"])
admin.site.register(
    ChangeRequest,
    LookOnly,
    list_display=["requested_at", "organization", "verb", "subject_name", "status", "requested_by", "decided_by"],
    list_filter=["status", "verb"],
    search_fields=["subject_name", "requested_by", "decided_by"],
)
admin.site.register(
    EndpointSetUse,
    LookOnly,
    list_display=["policy", "endpoint_set"],
    search_fields=["policy__name_key", "endpoint_set__name_key"],
)
admin.site.register(
    NeverAllowHost,
    LookOnly,
    list_display=["host", "organization", "reason", "added_at", "added_by"],
    search_fields=["host", "organization__key"],
)
admin.site.register(
    StagedVersion,
    LookOnly,
    list_display=["policy", "egress_policy", "based_on_version", "staged_at", "staged_by"],
    search_fields=["policy__name_key"],
)
admin.site.register(CanaryScope, LookOnly, list_display=["scope_key", "staged"], search_fields=["scope_key"])
admin.site.register(
    RequestedAttachments,
    LookOnly,
    list_display=["policy"],
    search_fields=["policy__name_key", "policy__organization__key"],
)
admin.site.register(
    PendingDetach,
    LookOnly,
    list_display=["policy", "key", "due_at"],
    search_fields=["policy__name_key", "policy__organization__key"],
)
