"""People, their memberships of organizations, the API keys of runners and systems, and their events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib.auth import models as auth
from django.contrib.auth.models import AbstractUser
from django.db import models, transaction
from django.db.models import JSONField, Q, Value

from policystore.accounts.roles import Role
from policystore.inventory.models import Organization


@dataclass(frozen=True, slots=True)
class Actor:
    """The person (`user`), key (`api_key`), command (`code`) or part of the store itself (`system`) behind a change.

    `user_id` is a person's id in the store, which stays when their name changes.
    `approved_by` names the second person, where the change waited for one.
    """

    name: str
    kind: str = "user"
    approved_by: str = ""
    user_id: int | None = None


SYSTEM = Actor(name="Policy Store", kind="system")


class UserManager(auth.UserManager["User"]):
    """Django's manager; a superuser made by `createsuperuser` leaves an event in every organization's history."""

    use_in_migrations = False

    def create_superuser(self, username: str, *args: Any, **fields: Any) -> User:
        """Create a superuser and record the event, in one transaction."""
        with transaction.atomic():
            user = super().create_superuser(username, *args, **fields)
            AccountEvent.objects.record_everywhere("rights changed", "createsuperuser", user.username, "superuser")
        return user


class User(AbstractUser):
    """A person. They sign in with GitHub or with a one-time link; never with a password.

    `github_id` is GitHub's numeric id, which identifies them. `username` is their login on GitHub at their last
    sign-in; it may change and pass to another person.
    """

    github_id = models.BigIntegerField(null=True, blank=True, unique=True, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    def __str__(self) -> str:
        return self.username


class Membership(models.Model):
    """A person's role in one organization; `from_github` ones end when GitHub no longer lists them."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=20, choices=Role.choices, default=Role.AUDITOR)
    from_github = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "organization"], name="one_membership_per_organization")]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization}: {self.get_role_display()}"


class FormerMember(models.Model):
    """Someone whose membership ended, with the role that they had.

    A person whom an owner removed (`removed_by`) stays out until an owner adds them again. One who left the
    organization on GitHub (`removed_by` is empty) comes back with at most this role.
    """

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="former_memberships")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="former_members")
    role = models.CharField(max_length=20, choices=Role.choices)
    removed_by = models.CharField(max_length=255, blank=True)
    ended_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "organization"], name="one_former_membership")]

    def __str__(self) -> str:
        return f"{self.user}, formerly in {self.organization}"


class GitHubCredential(models.Model):
    """A person's GitHub token, encrypted, and when membership was last checked with it."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="github_credential")
    encrypted_token = models.BinaryField()
    checked_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"GitHub token of {self.user}"


class SignInLink(models.Model):
    """A link that signs one person in once; only a digest of its secret is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sign_in_links")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"sign-in link of {self.user}"


class KeyKind(models.TextChoices):
    """The purpose of an API key."""

    VM = "vm", "GitHub-Hosted and VM runners"
    ARC = "arc", "ARC clusters"
    MANAGEMENT = "management", "Management"


class KeySlot(models.TextChoices):
    """Runner keys come in pairs, so that one can be replaced while the other still works."""

    PRIMARY = "primary", "Primary"
    SECONDARY = "secondary", "Secondary"


class ApiKey(models.Model):
    """A key of an organization, kept as a keyed hash; `hint` is the part of it that may be shown."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="api_keys")
    kind = models.CharField(max_length=20, choices=KeyKind.choices)
    slot = models.CharField(max_length=20, choices=KeySlot.choices, blank=True)
    name = models.CharField(max_length=100, blank=True)
    hint = models.CharField(max_length=40)
    digest = models.CharField(max_length=64, unique=True)
    # The names of the clusters that an ARC key is limited to, separated by spaces; empty for a key without a limit.
    clusters = models.TextField(blank=True, default="", db_default="")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=255)
    # The id of the user who made the key: their name may change.
    created_by_user = models.BigIntegerField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=255, blank=True)

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "kind", "slot"],
                condition=Q(revoked_at__isnull=True) & ~Q(slot=""),
                name="one_live_key_per_slot",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization} {self.get_kind_display()} {self.get_slot_display()} {self.name}".strip()

    @property
    def cluster_names(self) -> list[str]:
        """The clusters that the key is limited to; empty for a key without a limit."""
        return self.clusters.split()


class Sealed(models.Model):
    """An event with its place in its organization's chain: the digest covers its values and the event before it.

    Both are given by `audit_log.hash_chain`, the only writer; an event without a sequence waits for its seal.
    """

    sequence = models.BigIntegerField(null=True, editable=False)
    digest = models.CharField(max_length=64, blank=True, default="", db_default="", editable=False)

    class Meta:
        abstract = True


class AccountEventManager(models.Manager["AccountEvent"]):
    """Writes account events; call it in the transaction of the change."""

    def record(
        self,
        organization: Organization,
        kind: str,
        *,
        by: Actor,
        subject: str,
        detail: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record what happened to a key or member of an organization; `details` are values for the integrity check."""
        self.create(
            owner=organization.key,
            kind=kind,
            actor=by.name,
            subject=subject,
            detail=detail,
            details=dict(details or {}),
        )

    def record_everywhere(self, kind: str, actor: str, subject: str, detail: str = "") -> None:
        """Add an event that concerns every organization of the store to the history of each."""
        keys = Organization.objects.order_by("key").values_list("key", flat=True)
        self.bulk_create(
            AccountEvent(owner=key, kind=kind, actor=actor, subject=subject, detail=detail) for key in keys
        )


class AccountEvent(Sealed):
    """An event of a key or member, as values that outlive what they describe."""

    owner = models.CharField(max_length=255)
    kind = models.CharField(max_length=40)
    actor = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    detail = models.CharField(max_length=500, blank=True)
    # Values that prove what the database must have now, such as the digest of a new API key.
    details = models.JSONField(default=dict, blank=True, db_default=Value({}, output_field=JSONField()))
    at = models.DateTimeField(auto_now_add=True)

    objects = AccountEventManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "sequence"], name="account_event_sequence_once")]
        indexes = [
            models.Index(fields=["owner", "-id"], name="account_event_newest_first"),
            models.Index(fields=["owner", "id"], name="account_event_unsealed", condition=Q(sequence__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}"
