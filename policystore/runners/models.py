"""What runners asked for, one row a job run; and what every runner must never reach."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from policystore.inventory.models import Organization, Workflow


class Enforcement(models.TextChoices):
    """Whether a job was held to a policy, as its fetch and its telemetry prove it; `hint` says why."""

    ENFORCING = "enforcing", "Enforcing"
    UNCONFIRMED = "unconfirmed", "Unconfirmed"
    AUDIT = "audit", "Audit"
    BREAK_GLASS = "break_glass", "Break glass"
    DOWNGRADED = "downgraded", "Downgraded"
    NEVER_FETCHED = "never_fetched", "Never fetched"

    @property
    def hint(self) -> str:
        """One sentence on what was seen."""
        return _ENFORCEMENT_HINTS[self]


_ENFORCEMENT_HINTS = {
    Enforcement.ENFORCING: "Block was served, and no call off the list went through.",
    Enforcement.UNCONFIRMED: "Block was served; the job's agent has told of no call, so nothing proves that it blocks.",
    Enforcement.AUDIT: "Audit was served, or no policy applied: nothing is blocked.",
    Enforcement.BREAK_GLASS: "Audit was served in place of the policy's block: the glass was broken for its scope.",
    Enforcement.DOWNGRADED: "Block was served, and a call off the list went through all the same.",
    Enforcement.NEVER_FETCHED: "The job never asked for a policy.",
}


class Verification(models.TextChoices):
    """What proves that a job run is real. Anyone can register a job and send telemetry of it without an API key."""

    KEY = "key", "fetched its policy with an API key"
    TOKEN = "token", "its workflow run fetched a policy with a token from GitHub"
    SENDER = "sender", "its telemetry was sent with an API key"
    CLUSTER = "cluster", "an owner counts the unverified jobs of its cluster"


class JobRun(models.Model):
    """One job of a workflow run, as the runner named it, with the policy and version that it was served."""

    # Found by `job_run_newest_first`; each index more is work for each fetch.
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
    # As it was served: audit during a break glass, whatever the policy says.
    egress_policy = models.CharField(max_length=5, blank=True)
    # Whether a break glass made audit of the policy's block.
    break_glass = models.BooleanField(default=False, db_default=False)
    # The history event that staged what was served, where that was the policy's staged version and not the live one.
    staged_event_id = models.BigIntegerField(null=True, blank=True)
    first_seen_at = models.DateTimeField()
    fetched_at = models.DateTimeField(null=True, blank=True)
    monitored_at = models.DateTimeField(null=True, blank=True)
    api_key_id = models.BigIntegerField(null=True, blank=True)
    # Empty while unverified. Telemetry of an unverified job run is stored, expires soon, and counts nowhere.
    verified_by = models.CharField(max_length=8, choices=Verification.choices, blank=True, default="", db_default="")
    # Network events that were stored, whether or not they count.
    stored_events = models.PositiveIntegerField(default=0, db_default=0)
    # What telemetry reports of a verified job, counted as events arrive, so that the page of runs reads one table.
    calls = models.PositiveIntegerField(default=0, db_default=0)
    blocked_calls = models.PositiveIntegerField(default=0, db_default=0)
    off_list_calls = models.PositiveIntegerField(default=0, db_default=0)
    new_endpoints = models.PositiveIntegerField(default=0, db_default=0)
    # Whether it stands for its workflow run where runs are counted, since several job runs can have one run id.
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
            # Without the workflow: the longest names together are more than PostgreSQL's index takes.
            # No fetch tells the job's name, so none has to write one more page of an index wherever its repository is.
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
                condition=Q(egress_policy="block", off_list_calls__gt=0),
                name="job_run_fell_back",
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
        """What is known of whether the job's calls were held to a policy."""
        if self.fetched_at is None:
            return Enforcement.NEVER_FETCHED
        if self.egress_policy != "block":
            return Enforcement.BREAK_GLASS if self.break_glass else Enforcement.AUDIT
        if self.off_list_calls > 0:
            return Enforcement.DOWNGRADED
        return Enforcement.ENFORCING if self.calls else Enforcement.UNCONFIRMED

    @property
    def fell_back_to_audit(self) -> bool:
        """Whether a block policy was served and calls off its list went through all the same."""
        return self.egress_policy == "block" and self.off_list_calls > 0

    @property
    def is_canary(self) -> bool:
        """Whether the policy's staged version was served, and not the live one."""
        return self.staged_event_id is not None

    @property
    def has_no_policy(self) -> bool:
        """Whether the job asked and nothing applied, or never asked."""
        return self.policy_id is None

    @property
    def is_tagged(self) -> bool:
        """Whether there is anything to point out about this run."""
        if self.is_canary or self.break_glass or self.has_no_policy or not self.is_verified:
            return True
        return bool(self.blocked_calls or self.new_endpoints or self.fell_back_to_audit)

    @property
    def workflow_label(self) -> str:
        """The repository and workflow as pages show them: `hello-world/ci.yml`."""
        return f"{self.repository}/{self.workflow}" if self.workflow else self.repository


class LastFetch(models.Model):
    """What the latest job of a workflow was served; beside the job runs, so that coverage is one read a workflow."""

    # Noted by a join with the workflows. PostgreSQL would also lock, and for that rewrite, the row of each of them.
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
    """A workflow run of which a job showed a token that GitHub signed, which names the run and not the job."""

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
    """how much of a rate limit is used in the window that ends at `ends_at` (seconds since 1970).

    `name` holds a digest of the job, address or organization that the limit is counted for.
    """

    name = models.CharField(max_length=64, primary_key=True)
    ends_at = models.BigIntegerField(db_index=True)
    used = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.name}: {self.used}"
