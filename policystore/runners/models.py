"""Tables of job runs, of what proves them, of the global blocklist and of rate limits."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from policystore.inventory.models import Organization, Workflow


class Enforcement(models.TextChoices):
    """Whether a policy was enforced in a job, as its fetch and its telemetry prove; `hint` says why."""

    ENFORCING = "enforcing", "Enforcing"
    UNCONFIRMED = "unconfirmed", "Unconfirmed"
    AUDIT = "audit", "Audit"
    BREAK_GLASS = "break_glass", "Break glass"
    DOWNGRADED = "downgraded", "Downgraded"
    NEVER_FETCHED = "never_fetched", "Never fetched"

    @property
    def hint(self) -> str:
        """One sentence on what was observed."""
        return _ENFORCEMENT_HINTS[self]


_ENFORCEMENT_HINTS = {
    Enforcement.ENFORCING: "Block was served, and only calls on the list went through.",
    Enforcement.UNCONFIRMED: "Block was served, but the job's agent has not reported any call, so nothing proves it.",
    Enforcement.AUDIT: "Audit was served, or no policy applied, so no policy of this store blocked anything.",
    Enforcement.BREAK_GLASS: "Audit was served instead of the policy's block: break glass was active for its scope.",
    Enforcement.DOWNGRADED: (
        "The policy was not enforced as written: a call that is not on the list went through, or the enforcer could not"
        " load the policy."
    ),
    Enforcement.NEVER_FETCHED: "The job did not fetch a policy.",
}


class Verification(models.TextChoices):
    """What proves that a job run is real. Anyone can register a job and send telemetry of it without an API key."""

    KEY = "key", "fetched its policy with an API key"
    TOKEN = "token", "its workflow run sent a token from GitHub"
    SENDER = "sender", "its telemetry was sent with an API key"
    CLUSTER = "cluster", "an owner counts the unverified jobs of its cluster"


class Downgrade(models.TextChoices):
    """What an enforcer did because it could not load the policy, if it says so."""

    AUDIT = "audit", "The enforcer audited and blocked nothing"
    LOCKDOWN = "lockdown", "The enforcer blocked every call"


# Runs whose policy was not enforced as written.
DOWNGRADED = Q(egress_policy="block", off_list_calls__gt=0) | ~Q(downgrade="")


class JobRun(models.Model):
    """One job of a workflow run, as the runner named it, with the policy and version that it was served."""

    # `job_run_newest_first` serves as its index; every further index costs each fetch some work.
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="job_runs", db_index=False)
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
    # As served: audit during a break glass, whatever the policy says.
    egress_policy = models.CharField(max_length=5, blank=True)
    # True if a break glass turned the policy's block into audit.
    break_glass = models.BooleanField(default=False, db_default=False)
    # The history event that staged what was served, if that was the policy's staged version instead of the live one.
    staged_event_id = models.BigIntegerField(null=True, blank=True)
    first_seen_at = models.DateTimeField()
    fetched_at = models.DateTimeField(null=True, blank=True)
    monitored_at = models.DateTimeField(null=True, blank=True)
    api_key_id = models.BigIntegerField(null=True, blank=True)
    # Empty while unverified. Telemetry of an unverified job run is stored, expires soon, and counts nowhere.
    verified_by = models.CharField(max_length=8, choices=Verification.choices, blank=True, default="", db_default="")
    # The enforcer and its version, such as `CargoWall v1.3.6`, if it reports them.
    enforcer = models.CharField(max_length=100, blank=True, default="", db_default="")
    downgrade = models.CharField(max_length=8, choices=Downgrade.choices, blank=True, default="", db_default="")
    downgrade_reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    # Network events that were stored, whether or not they count.
    stored_events = models.PositiveIntegerField(default=0, db_default=0)
    # What telemetry reports of a verified job, counted as events arrive, so that the page of runs reads one table.
    calls = models.PositiveIntegerField(default=0, db_default=0)
    blocked_calls = models.PositiveIntegerField(default=0, db_default=0)
    off_list_calls = models.PositiveIntegerField(default=0, db_default=0)
    new_endpoints = models.PositiveIntegerField(default=0, db_default=0)
    # True if it counts as its workflow run where runs are counted, because several job runs can have one run id.
    counts_in_job = models.BooleanField(default=False, db_default=False)
    counts_in_cluster = models.BooleanField(default=False, db_default=False)
    counts_in_repository = models.BooleanField(default=False, db_default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "run_id", "correlation_id", "repository"], name="job_run_once_per_correlation"
            ),
        ]
        indexes = [
            models.Index(fields=["organization", "-id"], name="job_run_newest_first"),
            models.Index(fields=["organization", "correlation_id"], name="job_run_by_correlation"),
            # Repositories compare without case.
            models.Index("organization", Lower("repository"), F("id").desc(), name="job_run_of_folded_repository"),
            # Without the workflow, because the longest names together exceed the size limit of PostgreSQL's index. Only
            # with a job's name, which fetches do not have, so that no fetch has to write to one more index.
            models.Index(
                "organization",
                Lower("repository"),
                "job",
                F("id").desc(),
                condition=~Q(job=""),
                name="job_run_of_named_job",
            ),
            models.Index(
                fields=["organization", "cluster", "-id"], condition=~Q(cluster=""), name="job_run_of_cluster"
            ),
            models.Index(fields=["api_key_id", "-id"], name="job_run_of_key"),
            models.Index(fields=["organization", "-id"], condition=Q(blocked_calls__gt=0), name="job_run_blocked"),
            models.Index(fields=["organization", "-id"], condition=Q(new_endpoints__gt=0), name="job_run_new"),
            models.Index(fields=["organization", "-id"], condition=Q(policy_id__isnull=True), name="job_run_unserved"),
            models.Index(fields=["organization", "-id"], condition=Q(verified_by=""), name="job_run_unverified"),
            models.Index(
                fields=["organization", "-id"],
                condition=DOWNGRADED,
                name="job_run_downgraded",
            ),
            models.Index(fields=["organization", "-id"], condition=Q(break_glass=True), name="job_run_break_glass"),
            models.Index(
                fields=["staged_event_id", "first_seen_at"],
                condition=Q(staged_event_id__isnull=False),
                name="job_run_staged",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.repository}/{self.workflow} {self.correlation_id}"

    @property
    def is_verified(self) -> bool:
        """True if the job's telemetry counts."""
        return self.verified_by != ""

    @property
    def enforcement(self) -> Enforcement:
        """What is known of whether the policy was enforced."""
        if self.is_downgraded:
            return Enforcement.DOWNGRADED
        if self.fetched_at is None:
            return Enforcement.NEVER_FETCHED
        if self.egress_policy != "block":
            return Enforcement.BREAK_GLASS if self.break_glass else Enforcement.AUDIT
        return Enforcement.ENFORCING if self.calls else Enforcement.UNCONFIRMED

    @property
    def is_downgraded(self) -> bool:
        """True if the policy was not enforced as written: see DOWNGRADED."""
        return self.downgrade != "" or (self.egress_policy == "block" and self.off_list_calls > 0)

    @property
    def is_canary(self) -> bool:
        """True if the policy's staged version was served instead of the live one."""
        return self.staged_event_id is not None

    @property
    def workflow_label(self) -> str:
        """The repository and workflow as shown on pages: `hello-world/ci.yml`."""
        return f"{self.repository}/{self.workflow}" if self.workflow else self.repository


class LastFetch(models.Model):
    """What the latest job of a workflow was served; not in JobRun, so that coverage reads one row per workflow."""

    # Without a constraint: rows are written by a join with the workflows, and PostgreSQL would lock, and for that
    # rewrite, the row of each of these.
    workflow = models.OneToOneField(
        Workflow, on_delete=models.CASCADE, primary_key=True, related_name="last_fetch", db_constraint=False
    )
    at = models.DateTimeField()
    run_id = models.CharField(max_length=64, blank=True)
    correlation_id = models.CharField(max_length=255)
    cluster = models.CharField(max_length=255, blank=True)
    policy_id = models.BigIntegerField(null=True, blank=True)
    policy_version = models.PositiveIntegerField(null=True, blank=True)
    egress_policy = models.CharField(max_length=5, blank=True)

    def __str__(self) -> str:
        return f"{self.workflow}: {self.at}"


class BlocklistEntry(models.Model):
    """A destination that no job may reach, in any mode: an IPv4 address, a domain or a wildcard domain.

    Each organization has a list of its own. An entry without an organization applies to all of them; the operator of
    the store manages those.
    """

    class Kind(models.TextChoices):
        IP_ADDRESS = "ip_address", "IPv4 address"
        DOMAIN = "domain", "Domain"
        WILDCARD_DOMAIN = "wildcard_domain", "Wildcard domain"

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="blocklist", null=True, blank=True
    )
    kind = models.CharField(max_length=20, choices=Kind.choices)
    endpoint = models.CharField(max_length=255)
    reason = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=255)

    class Meta:
        ordering = ["kind", "endpoint"]
        verbose_name_plural = "blocklist entries"
        constraints = [
            models.UniqueConstraint(fields=["organization", "endpoint"], name="blocklist_entry_once"),
            models.UniqueConstraint(
                fields=["endpoint"], condition=Q(organization__isnull=True), name="store_wide_blocklist_entry_once"
            ),
        ]

    def __str__(self) -> str:
        return self.endpoint


class VerifiedRun(models.Model):
    """A workflow run with a job that sent a token signed by GitHub, which names the run but not the job."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    repository = models.CharField(max_length=255)
    run_id = models.CharField(max_length=64)
    at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "run_id", "repository"], name="verified_run_once"),
        ]

    def __str__(self) -> str:
        return f"{self.repository} {self.run_id}"


class RateLimitUse(models.Model):
    """How much of a rate limit is used in the window that ends at `ends_at` (seconds since 1970).

    `name` holds a digest of the job, address or organization that the limit is counted for.
    """

    name = models.CharField(max_length=64, primary_key=True)
    ends_at = models.BigIntegerField(db_index=True)
    used = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.name}: {self.used}"
