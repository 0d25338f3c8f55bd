"""A staged version: what a policy may become, served to its canaries and watched before it goes live."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from policystore.policies.models.policy import Policy
from policystore.policy_language import exceptions
from policystore.policy_language.scopes import Scope


class StagedVersion(models.Model):
    """The one version of a policy that stands beside the live one: its text, and the reply compiled from it.

    `event_id` is the history event that staged it as it is now, by which job runs name what they were served;
    `based_on_version` is the live version that its author had before them.
    """

    policy = models.OneToOneField(Policy, on_delete=models.CASCADE, primary_key=True, related_name="staged")
    text = models.TextField()
    reply = models.TextField()
    egress_policy = models.CharField(max_length=5, choices=Policy.Mode.choices)
    endpoint_count = models.PositiveIntegerField()
    based_on_version = models.PositiveIntegerField()
    event_id = models.BigIntegerField()
    staged_at = models.DateTimeField()
    staged_by = models.CharField(max_length=255)

    def __str__(self) -> str:
        return f"{self.policy}, staged"

    @property
    def served_reply(self) -> str:
        """The JSON that canaries get now, including the policy's exceptions."""
        return exceptions.reply_at(self.reply, self.policy.open_exceptions, timezone.now())


class CanaryScope(models.Model):
    """A scope whose jobs get the staged version, as far as they get its policy at all."""

    staged = models.ForeignKey(StagedVersion, on_delete=models.CASCADE, related_name="canaries")
    scope_key = models.CharField(max_length=1100)

    class Meta:
        ordering = ["scope_key"]
        # Also what the policy fetch looks up.
        constraints = [models.UniqueConstraint(fields=["staged", "scope_key"], name="canary_scope_once")]

    def __str__(self) -> str:
        return self.scope_key

    @property
    def scope(self) -> Scope:
        """The scope that `scope_key` names."""
        return Scope.from_key(self.scope_key)
