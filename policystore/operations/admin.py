"""Tables in the Django admin that support staff can only look at: what changes them also records it elsewhere."""

from __future__ import annotations

from django.contrib import admin

from policystore.audit_log.models import HistoryCheck, HistoryEvent, HistoryHead, IntegrityProblem
from policystore.detections.models import Detection, SuppressionRule
from policystore.integrations.models import DeliveryAttempt, Integration, OutboxMessage
from policystore.inventory.admin import LookOnly
from policystore.operations.models import Heartbeat
from policystore.runners.models import BlocklistEntry, JobRun, LastFetch, RateLimitUse, VerifiedRun
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

admin.site.register(
    HistoryEvent,
    LookOnly,
    list_display=["at", "owner", "subject_name", "kind", "actor", "version"],
    list_filter=["subject_type", "kind"],
    search_fields=["owner", "subject_name", "actor"],
)
# The end of each sealed hash chain.
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
admin.site.register(
    Detection,
    LookOnly,
    list_display=("detection_id", "organization", "host", "status", "at"),
    list_filter=("status", "detection_id"),
)
admin.site.register(SuppressionRule, LookOnly, list_display=("reason", "organization", "created_by", "created_at"))
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
admin.site.register(Heartbeat, LookOnly, list_display=["name", "process", "at"])
