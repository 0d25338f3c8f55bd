"""Prints a one-time sign-in link."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from policystore.accounts import sign_in
from policystore.accounts.models import User


class Command(BaseCommand):
    """For the first administrator, and for support staff when GitHub cannot be used."""

    help = "Print a link that signs a person in once, within an hour."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", default="admin", help="the person's name in the store (default: admin)")
        parser.add_argument(
            "--base-url", default=settings.PUBLIC_URL, help="the store's own address (default: PUBLIC_URL)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user “{options['user']}”. Name another one with --user.")
        secret = sign_in.issue_link(user=user)
        self.stdout.write(options["base_url"].rstrip("/") + reverse("sign-in-link", args=[secret]))
