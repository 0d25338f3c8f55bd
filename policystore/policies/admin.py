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


@admin.register(Policy)
class PolicyAdmin(LookOnly):
    """Policies of all organizations."""

    list_display = ["name", "organization", "egress_policy", "endpoint_count", "attachment_count", "changed_at"]
    list_filter = ["egress_policy"]
    list_select_related = ["organization"]
    search_fields = ["name_key", "organization__key"]
    exclude = ["search_text", "name_key"]


@admin.register(Attachment)
class AttachmentAdmin(LookOnly):
    """Attachments of all organizations."""

    list_display = ["scope_key", "policy", "attached_at", "attached_by"]
    list_filter = ["scope_type"]
    list_select_related = ["policy"]
    search_fields = ["scope_key"]


@admin.register(PolicyException)
class PolicyExceptionAdmin(LookOnly):
    """Exceptions of all organizations."""

    list_display = ["policy", "endpoint", "owner", "added_at", "expires_at", "ended_at"]
    list_select_related = ["policy"]
    search_fields = ["endpoint", "organization__key"]


@admin.register(EndpointSet)
class EndpointSetAdmin(LookOnly):
    """Endpoint sets of all organizations."""

    list_display = ["name", "organization", "endpoint_count", "changed_at", "changed_by"]
    list_select_related = ["organization"]
    search_fields = ["name_key", "organization__key"]
    exclude = ["name_key"]


@admin.register(BreakGlass)
class BreakGlassAdmin(LookOnly):
    """Where audit was served in place of block for some hours."""

    list_display = ["scope_key", "started_at", "started_by", "ends_at", "ended_at", "ended_by"]
    search_fields = ["scope_key", "reason"]


@admin.register(ManagedPolicy)
class ManagedPolicyAdmin(LookOnly):
    """Policies that are managed as code."""

    list_display = ["policy", "source", "applied_at", "applied_by"]
    list_select_related = ["policy"]
    search_fields = ["policy__name_key", "source"]


@admin.register(FourEyes)
class FourEyesAdmin(LookOnly):
    """Organizations that want a second person."""

    list_display = ["organization", "since", "set_by"]
    list_select_related = ["organization"]


@admin.register(ChangeRequest)
class ChangeRequestAdmin(LookOnly):
    """Changes that wait or waited for a second person."""

    list_display = ["requested_at", "organization", "verb", "subject_name", "status", "requested_by", "decided_by"]
    list_filter = ["status", "verb"]
    list_select_related = ["organization"]
    search_fields = ["subject_name", "requested_by", "decided_by"]


@admin.register(EndpointSetUse)
class EndpointSetUseAdmin(LookOnly):
    """Which policies include which endpoint sets."""

    list_display = ["policy", "endpoint_set"]
    list_select_related = ["policy", "endpoint_set"]
    search_fields = ["policy__name_key", "endpoint_set__name_key"]


@admin.register(NeverAllowHost)
class NeverAllowHostAdmin(LookOnly):
    """Hosts that no policy may allow."""

    list_display = ["host", "organization", "reason", "added_at", "added_by"]
    list_select_related = ["organization"]
    search_fields = ["host", "organization__key"]


@admin.register(StagedVersion)
class StagedVersionAdmin(LookOnly):
    """Staged versions."""

    list_display = ["policy", "egress_policy", "based_on_version", "staged_at", "staged_by"]
    list_select_related = ["policy"]
    search_fields = ["policy__name_key"]


@admin.register(CanaryScope)
class CanaryScopeAdmin(LookOnly):
    """The canary scopes of staged versions."""

    list_display = ["scope_key", "staged"]
    list_select_related = ["staged__policy"]
    search_fields = ["scope_key"]


@admin.register(RequestedAttachments)
class RequestedAttachmentsAdmin(LookOnly):
    """Attachments as a management key spelled them in its last request."""

    list_display = ["policy"]
    list_select_related = ["policy"]
    search_fields = ["policy__name_key", "policy__organization__key"]


@admin.register(PendingDetach)
class PendingDetachAdmin(LookOnly):
    """Detaches by a management key that wait for the attach that follows, or for approval."""

    list_display = ["policy", "key", "due_at"]
    list_select_related = ["policy", "key"]
    search_fields = ["policy__name_key", "policy__organization__key"]
