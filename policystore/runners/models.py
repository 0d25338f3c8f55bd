"""What runners asked for: one row a job run."""

from __future__ import annotations

from django.db import models

from policystore.inventory.models import Organization


class JobRun(models.Model):
    """One job of a workflow run, as the runner named it, with the policy and version that it was served."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="job_runs")
    repository = models.CharField(max_length=255)
    workflow = models.CharField(max_length=512, blank=True)
    run_id = models.CharField(max_length=64, blank=True)
    correlation_id = models.CharField(max_length=255)
    job = models.CharField(max_length=255, blank=True)
    cluster = models.CharField(max_length=255, blank=True)
    policy_id = models.BigIntegerField(null=True, blank=True)
    policy_name = models.CharField(max_length=100, blank=True)
    policy_version = models.PositiveIntegerField(null=True, blank=True)
    scope_key = models.CharField(max_length=1100, blank=True)
    egress_policy = models.CharField(max_length=5, blank=True)
    first_seen_at = models.DateTimeField()
    fetched_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "run_id", "correlation_id"], name="job_run_once_per_correlation"
            ),
        ]
        indexes = [models.Index(fields=["organization", "-id"], name="job_run_newest_first")]

    def __str__(self) -> str:
        return f"{self.repository}/{self.workflow} {self.correlation_id}"
