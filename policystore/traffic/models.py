"""Observed traffic: single events for a limited time, and permanent aggregates per run and per job."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun


class Status(models.TextChoices):
    """The outcome of a call."""

    ALLOWED = "allowed", "Allowed"
    BLOCKED = "blocked", "Blocked"
    WOULD_BE_BLOCKED = "would_be_blocked", "Would be blocked"
    OFF_LIST = "off_list", "Not on the allowlist"
    # Wildcards with different ports match the host, and the agent picks one of them at random.
    UNDETERMINED = "undetermined", "Undetermined"


# The call is not on the policy's list, and the agent did not stop it.
NOT_ALLOWED = (Status.OFF_LIST, Status.WOULD_BE_BLOCKED)
# Events worth showing outside the page of their job. Most events are neither.
NOTEWORTHY = ~Q(status=Status.ALLOWED) | Q(is_new=True)


class NetworkEvent(models.Model):
    """One DNS answer or connection of a job, as its agent reported it; kept for EVENT_RETENTION_DAYS.

    `client_at` is the client's time; `occurred_at` is that time corrected if the client's clock is wrong.
    """

    class Kind(models.TextChoices):
        DNS = "dns", "DNS"
        CONNECTION = "connection", "Connection"
        # Neither TCP nor UDP, such as ICMP: its port is 0, and no policy can list it.
        OTHER = "other", "Other protocol"

    # Without constraints, since events are only added while their job run's row is locked: checking both keys takes a
    # third of PostgreSQL's time per event. The indexes below cover both.
    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    job_run = models.ForeignKey(
        JobRun, on_delete=models.CASCADE, related_name="events", db_index=False, db_constraint=False
    )
    digest = models.CharField(max_length=32)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField()
    address = models.CharField(max_length=45, blank=True)
    process = models.CharField(max_length=255, blank=True)
    ancestry = models.JSONField(default=list)
    step = models.CharField(max_length=255, blank=True)
    status = models.CharField(max_length=16, choices=Status.choices)
    is_new = models.BooleanField(default=False)
    reason = models.CharField(max_length=500, blank=True)
    occurred_at = models.DateTimeField()
    client_at = models.DateTimeField(null=True, blank=True)
    received_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job_run", "digest"], name="event_once_per_job_run")]
        indexes = [
            models.Index(fields=["job_run", "-occurred_at", "-id"], name="event_of_job_run"),
            models.Index(fields=["received_at"], name="event_by_arrival"),
            models.Index(fields=["organization", "-id"], condition=NOTEWORTHY, name="event_noteworthy"),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.status}"

    @property
    def endpoint(self) -> str:
        """`host:port`, as a policy lists it; the host alone if there is no port."""
        return f"{self.host}:{self.port}" if self.port else self.host

    @property
    def parents(self) -> list[str]:
        """The names of the processes that started the one which made the call, nearest first."""
        return [process["name"] for process in self.ancestry[1:]]

    @property
    def is_by_blocklist(self) -> bool:
        """True if the global blocklist stopped the call, which no policy can allow."""
        return self.status == Status.BLOCKED and self.reason.startswith("GLOBAL_BLOCKLIST")

    @property
    def can_be_listed(self) -> bool:
        """True if a policy can allow this endpoint: the blocklist overrides policies, an address is not a host."""
        return not self.is_by_blocklist and self.host != self.address and self.kind != self.Kind.OTHER

    @property
    def client_clock(self) -> datetime | None:
        """The client's time if it was corrected, or None."""
        return self.client_at if self.client_at != self.occurred_at else None


class RunEndpoint(models.Model):
    """An endpoint that one job run called, kept with the run, so that draft policies can be replayed over past runs.

    `first_seen_at` and `last_seen_at` are the times of calls that went through, or of blocked calls if none did.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    job_run = models.ForeignKey(JobRun, on_delete=models.CASCADE, related_name="endpoints")
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField()
    calls = models.PositiveIntegerField()
    blocked_calls = models.PositiveIntegerField()
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job_run", "host", "port"], name="endpoint_once_per_job_run")]
        indexes = [models.Index(fields=["organization", "host", "port", "-job_run"], name="run_endpoint_by_endpoint")]

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class JobEndpoint(models.Model):
    """An endpoint of a job's baseline: all its runs together. Baselines of wider scopes are sums of these rows.

    `runs` counts the workflow runs that reached it. `cluster_runs` and `repository_runs` count those among them that no
    other job of the same cluster or repository counts. The times are those of RunEndpoint.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    repository = models.CharField(max_length=255)
    workflow = models.CharField(max_length=512)
    job = models.CharField(max_length=255)
    cluster = models.CharField(max_length=255)
    host = models.CharField(max_length=255)
    port = models.PositiveIntegerField()
    calls = models.PositiveBigIntegerField()
    blocked_calls = models.PositiveBigIntegerField()
    runs = models.PositiveIntegerField()
    cluster_runs = models.PositiveIntegerField(default=0)
    repository_runs = models.PositiveIntegerField(default=0)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "repository", "workflow", "job", "cluster", "host", "port"],
                name="endpoint_once_per_job",
            )
        ]
        indexes = [
            models.Index(fields=["organization", "host", "port"], name="job_endpoint_by_endpoint"),
            models.Index(fields=["organization", "cluster"], name="job_endpoint_by_cluster"),
        ]

    def __str__(self) -> str:
        return f"{self.repository}/{self.workflow} {self.job} {self.host}:{self.port}"


class EarlyRun(models.Model):
    """A job run whose calls arrived before it was fully known, and the job they count for until the worker moves them.

    `is_counted` is false for a run that was unverified when its first event arrived: its events are stored but not
    counted until the worker finds it verified and counts all of them. `fetched_at` is the run's own at the time when
    they were first judged; `look_at` is when to check next whether more is known.
    """

    job_run = models.OneToOneField(JobRun, on_delete=models.CASCADE, primary_key=True, related_name="early")
    repository = models.CharField(max_length=255)
    workflow = models.CharField(max_length=512, blank=True)
    job = models.CharField(max_length=255, blank=True)
    cluster = models.CharField(max_length=255, blank=True)
    fetched_at = models.DateTimeField(null=True, blank=True)
    is_counted = models.BooleanField(default=True)
    since = models.DateTimeField()
    look_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"Early {self.job_run_id}"


class RunBitmap(models.Model):
    """Up to a few thousand neighboring job runs of an organization and what each of them called, encoded.

    The worker builds it from RunEndpoint, so that a draft policy is replayed over many runs without reading a row per
    run (see `impact/run_bitmaps.py`). `endpoints` (the number of rows it was built from) and `fetched_at` show whether
    it is out of date.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    number = models.BigIntegerField()
    newest_at = models.DateTimeField()
    endpoints = models.PositiveIntegerField()
    fetched_at = models.DateTimeField(null=True)
    is_final = models.BooleanField(default=False)
    content = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["number", "organization"], name="run_bitmap_once")]
        indexes = [
            models.Index(fields=["organization", "-newest_at"], name="run_bitmap_newest_first"),
            models.Index(fields=["newest_at"], condition=Q(is_final=False), name="run_bitmap_unfinished"),
        ]

    def __str__(self) -> str:
        return f"Run bitmap {self.number}"


class BitmapProgress(models.Model):
    """How far the worker has added observed calls to run bitmaps; one row.

    Calls are found by the ids of their RunEndpoint rows. All up to `seen_id` were read, and all from `recheck_id` on
    are read again, since a row may become visible after one with a higher id. `mark_id` and `marked_at` advance
    `recheck_id`.
    """

    seen_id = models.BigIntegerField(default=0)
    recheck_id = models.BigIntegerField(default=0)
    mark_id = models.BigIntegerField(default=0)
    marked_at = models.DateTimeField(null=True)
    caught_up_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "bitmap progress"

    def __str__(self) -> str:
        return f"Seen {self.seen_id}"


class StagedRun(models.Model):
    """A job run that got a policy's live version while another one was staged, judged by the staged one.

    `event_id` identifies the staged version, as in JobRun. `off_list` holds the called endpoints that it does not list,
    as `host:port`. The worker creates these from RunEndpoint.
    """

    event_id = models.BigIntegerField()
    job_run = models.ForeignKey(JobRun, on_delete=models.CASCADE, related_name="+")
    began_at = models.DateTimeField()
    off_list = models.JSONField(default=list)
    off_list_count = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["event_id", "job_run"], name="staged_run_once")]
        indexes = [
            models.Index(fields=["event_id", "began_at", "off_list_count"], name="staged_run_by_time"),
            models.Index(
                fields=["event_id", "-job_run"], condition=Q(off_list_count__gt=0), name="staged_run_would_block"
            ),
        ]

    def __str__(self) -> str:
        return f"Run {self.job_run_id} by {self.event_id}: {self.off_list_count}"


class StagedProgress(models.Model):
    """How far the worker has judged observed calls by staged versions, as an id of RunEndpoint; one row.

    Rows up to `mark_id`, which existed at `marked_at`, are judged some time later: until then a row with a lower id may
    still become visible.
    """

    seen_id = models.BigIntegerField(default=0)
    mark_id = models.BigIntegerField(default=0)
    marked_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "staged progress"

    def __str__(self) -> str:
        return f"Seen {self.seen_id}"
