"""Prints a policy in the form of an enforcer."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.enforcers.policy import EffectivePolicy
from policystore.enforcers.registry import ENFORCERS
from policystore.policies.management.commands.export import organization_named
from policystore.policies.models import Policy
from policystore.policy_language.document import read_reply


class Command(BaseCommand):
    """Prints the form to standard output, and how the enforcer differs from the policy to standard error."""

    help = "Print a policy in the form of an enforcer, and how the enforcer differs from the policy."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the policy's name")
        parser.add_argument("enforcer", choices=ENFORCERS)
        parser.add_argument("--organization", default="", help="its login; required if the store has several")

    def handle(self, *args: Any, **options: Any) -> None:
        organization = organization_named(options["organization"])
        policy = Policy.objects.filter(organization=organization, name_key=options["name"].strip().lower()).first()
        if policy is None:
            raise CommandError(f"{organization.login} has no policy named {options['name']}.")
        form = ENFORCERS[options["enforcer"]].compiled(EffectivePolicy.from_reply(read_reply(policy.served_reply)))
        self.stdout.write(form.text, ending="")
        for group in form.grouped():
            self.stderr.write(f"{group.effect.capitalize()}: {', '.join(group.calls)}. {group.reason}")
        for limit in form.limits:
            self.stderr.write(limit)
