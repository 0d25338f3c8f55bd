"""Detections and rules in the admin: to look at, since changes leave events elsewhere."""

from django.contrib import admin

from policystore.detections.models import Detection, SuppressionRule
from policystore.inventory.admin import LookOnly

admin.site.register(
    Detection,
    LookOnly,
    list_display=("detection_id", "organization", "host", "status", "at"),
    list_filter=("status", "detection_id"),
)
admin.site.register(SuppressionRule, LookOnly, list_display=("reason", "organization", "created_by", "created_at"))
