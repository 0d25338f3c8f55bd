"""Suspicious behavior detected on jobs, and the rules by which an organization suppresses some of it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun

# The detections that the store makes or knows by name; agents may report others by their id.
TITLES = {
    "Domain-Blocked": "A call was blocked",
    "New-Outbound-Network-Call": "A call to a new endpoint",
    "Privileged-Container": "A privileged container was started",
    "Runner-Worker-Memory-Read": "The runner's memory was read",
    "Reverse-Shell": "A reverse shell was opened",
}


def title_of(detection_id: str) -> str:
    """A short description of the detections with this id."""
    return TITLES.get(detection_id, detection_id.replace("-", " "))


class SuppressionRule(models.Model):
    """Suppresses detections that match every filled-in field. In `destination`, `*` matches any characters."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="suppression_rules")
    detection_id = models.CharField(max_length=100, blank=True)
    scope_key = models.CharField(max_length=1100, blank=True)
    destination = models.CharField(max_length=255, blank=True)
    process = models.CharField(max_length=255, blank=True)
    reason = models.CharField(max_length=500)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=255)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.reason


class Detection(models.Model):
    """One detection on one job run. It stores the policy as values, since it outlives the policy."""

    class Status(models.TextChoices):
        NEW = "new", "New"
        RESOLVED = "resolved", "Resolved"
        SUPPRESSED = "suppressed", "Suppressed"
        UNVERIFIED = "unverified", "Unverified"

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="detections")
    job_run = models.ForeignKey(JobRun, on_delete=models.CASCADE, related_name="detections")
    digest = models.CharField(max_length=32)
    detection_id = models.CharField(max_length=100)
    detail = models.CharField(max_length=1000, blank=True)
    host = models.CharField(max_length=255, blank=True)
    port = models.PositiveIntegerField(null=True, blank=True)
    process = models.CharField(max_length=255, blank=True)
    is_lockdown = models.BooleanField(default=False)
    job_terminated = models.BooleanField(default=False)
    policy_id = models.BigIntegerField(null=True, blank=True)
    policy_name = models.CharField(max_length=100, blank=True)
    policy_version = models.PositiveIntegerField(null=True, blank=True)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.NEW)
    rule = models.ForeignKey(
        SuppressionRule, null=True, blank=True, on_delete=models.SET_NULL, related_name="detections"
    )
    changed_at = models.DateTimeField(null=True, blank=True)
    changed_by = models.CharField(max_length=255, blank=True)
    at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job_run", "digest"], name="detection_once_per_job_run")]
        indexes = [
            models.Index(fields=["organization", "-id"], name="detection_newest_first"),
            models.Index(fields=["organization", "status", "-id"], name="detection_by_status"),
            models.Index(fields=["organization", "detection_id", "-id"], name="detection_by_kind"),
            models.Index(fields=["job_run"], condition=Q(status="unverified"), name="detection_unverified"),
        ]

    def __str__(self) -> str:
        return f"{self.detection_id} on {self.job_run}"

    @property
    def title(self) -> str:
        """A short description of the detection."""
        return title_of(self.detection_id)

    @property
    def endpoint(self) -> str:
        """`host:port`, or empty if the detection is not about a call."""
        return f"{self.host}:{self.port}" if self.host and self.port else self.host
