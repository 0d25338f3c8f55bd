"""A whole store with one command: database, demo organization, first administrator, web and worker."""

from __future__ import annotations

import os
import socket
import sys
from argparse import BooleanOptionalAction
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from policystore import environment
from policystore.accounts.actions import members, sign_in_links
from policystore.accounts.actors import SYSTEM
from policystore.accounts.models import Role, User
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.operations import demo
from policystore.operations.processes import StopRequest, run_together

ADMINISTRATOR = "admin"


class Command(BaseCommand):
    """Makes what is missing, keeps what is there, and serves until Ctrl-C."""

    help = "Set up a local store if there is none, and serve it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="the address to serve on (default: 127.0.0.1)")
        parser.add_argument("--port", type=int, default=8000, help="the port to serve on (default: 8000)")
        parser.add_argument(
            "--demo", action=BooleanOptionalAction, default=True, help="load the demo organization on the first run"
        )
        parser.add_argument(
            "--organization", default="my-organization", help="the first organization where there is no demo"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError(
                "quickstart is for a local store; unset POLICYSTORE_MODE. The README tells of production."
            )
        request = StopRequest()
        request.listen()
        host, port = options["host"], options["port"]
        self._refuse_taken(host, port)
        self.stdout.write(f"Database: {self._database()}")
        call_command("migrate", verbosity=0, interactive=False)
        self._first_run(demo_wanted=options["demo"], organization=options["organization"])
        address = f"http://{host}:{port}"
        self._print_link(address)
        self.stdout.write(f"Policy Store serves on {address} (Ctrl-C stops it)")
        self.stdout.flush()
        ended = run_together(_commands(host, port), environment=self._environment(host), request=request)
        if ended is not None:
            raise CommandError(ended)
        self.stdout.write("Stopped.")

    def _refuse_taken(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as error:
                raise CommandError(f"Cannot serve on {host}:{port} ({error}); choose another with --port.") from error

    def _database(self) -> str:
        database = settings.DATABASES["default"]
        if "sqlite" in database["ENGINE"]:
            return str(database["NAME"])
        return f"{database['NAME']} on {database.get('HOST') or 'the local server'}"

    def _first_run(self, *, demo_wanted: bool, organization: str) -> None:
        if Organization.objects.exists():
            return
        if demo_wanted:
            first = demo.load()
            self.stdout.write(f"Loaded the demo organization {first.login}.")
        else:
            try:
                first = inventory.add_organization(login=organization)
            except ValueError as error:
                raise CommandError(f"--organization: {error}") from error
        members.add(organization=first, username=ADMINISTRATOR, role=Role.OWNER, by=SYSTEM)
        User.objects.filter(username=ADMINISTRATOR).update(is_staff=True, is_superuser=True)

    def _print_link(self, address: str) -> None:
        administrator = User.objects.filter(username=ADMINISTRATOR, is_active=True).first()
        if administrator is not None and administrator.last_login is None:
            secret = sign_in_links.issue(user=administrator)
            self.stdout.write("Sign in as the first administrator, once, within an hour:")
            self.stdout.write(f"  {address}{reverse('sign-in-link', args=[secret])}")
        else:
            self.stdout.write("For another sign-in link: manage.py sign_in_link")

    def _environment(self, host: str) -> dict[str, str]:
        hosts = [*settings.ALLOWED_HOSTS, host]
        if host in ("0.0.0.0", "::"):  # noqa: S104 the person chose to serve to the network
            hosts.append(socket.gethostname())
        return {
            **os.environ,
            "POLICYSTORE_MODE": environment.LOCAL,
            "POLICYSTORE_DATA_DIR": str(settings.DATA_DIR),
            "ALLOWED_HOSTS": ",".join(dict.fromkeys(hosts)),
        }


def _commands(host: str, port: int) -> dict[str, list[str]]:
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    configuration = "python:policystore.gunicorn_conf"
    gunicorn = [sys.executable, "-m", "gunicorn", "policystore.wsgi", "--config", configuration, "--bind", bind]
    root = str(settings.BASE_DIR)
    return {
        "web": [*gunicorn, "--chdir", root],
        "worker": [sys.executable, os.path.join(root, "manage.py"), "work"],
    }
