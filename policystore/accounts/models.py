"""Who may do what: people, their membership of organizations, and the keys of runners and systems."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q

from policystore.inventory.models import Organization


class User(AbstractUser):
    """A person. Signs in by GitHub, or the first time by a one-time link; never by password."""

    def __str__(self) -> str:
        return self.get_full_name() or self.username


class Role(models.TextChoices):
    """What a member may do; each role includes the ones before it."""

    AUDITOR = "auditor", "Auditor"
    SECURITY_ADMIN = "security_admin", "Security admin"
    OWNER = "owner", "Owner"


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
    """What an API key is for."""

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
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=255)
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


class Sealed(models.Model):
    """An event with its place in its organization's chain: the digest covers its values and the event before it.

    Both are given by `policies.actions.sealing`, the only writer; an event without a sequence waits for its seal.
    """

    sequence = models.BigIntegerField(null=True, editable=False)
    digest = models.CharField(max_length=64, blank=True, default="", db_default="", editable=False)

    class Meta:
        abstract = True


class AccountEvent(Sealed):
    """What happened to keys and members, as values that outlive what they tell about."""

    owner = models.CharField(max_length=255)
    kind = models.CharField(max_length=40)
    actor = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    detail = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "sequence"], name="account_event_sequence_once")]
        indexes = [
            models.Index(fields=["owner", "-id"], name="account_event_newest_first"),
            models.Index(fields=["owner", "id"], name="account_event_unsealed", condition=Q(sequence__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}"
