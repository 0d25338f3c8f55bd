"""A whole store with one command: database, demo organization, first administrator, web, fetch and worker."""

from __future__ import annotations

import os
import socket
import sys
from argparse import BooleanOptionalAction
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from policystore.accounts import members, sign_in
from policystore.accounts.models import SYSTEM, User
from policystore.accounts.roles import Role
from policystore.config import env
from policystore.demo import data
from policystore.inventory import actions as inventory
from policystore.inventory.models import Organization
from policystore.operations.certificates import Certificates, prepare
from policystore.operations.doctor import installation
from policystore.operations.processes import StopRequest, check_port_is_free, run_together

ADMINISTRATOR = "admin"
LOOK_SECONDS = 1.0


class Command(BaseCommand):
    """Creates what is missing, keeps existing data, and serves until Ctrl-C."""

    help = "Set up a local store if there is none, and serve it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="the address to serve on (default: 127.0.0.1)")
        parser.add_argument(
            "--port",
            type=int,
            default=8000,
            help="the port for pages, telemetry and the management API (default: 8000)",
        )
        parser.add_argument("--fetch-port", type=int, help="the port for policy fetches (default: one above --port)")
        parser.add_argument(
            "--demo", action=BooleanOptionalAction, default=True, help="load the demo organization on the first run"
        )
        parser.add_argument(
            "--tls", action="store_true", help="serve https, with a certificate of the store's own authority"
        )
        parser.add_argument(
            "--name",
            action="append",
            default=[],
            metavar="HOST",
            help="another host name that the store answers to; may be given several times",
        )
        parser.add_argument(
            "--organization", default="my-organization", help="the first organization, without the demo"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError(
                "quickstart is for a local store. Unset POLICYSTORE_MODE, or run `manage.py help_topics install`."
            )
        request = StopRequest()
        request.listen()
        host = options["host"]
        port, fetch_port = self._free_ports(host, options["port"], options["fetch_port"])
        self.stdout.write(f"Database: {installation.database_name()}")
        call_command("migrate", verbosity=0, interactive=False)
        self._first_run(demo_wanted=options["demo"], organization=options["organization"])
        hosts = self._hosts(host, options["name"])
        certificates = self._certificates(hosts) if options["tls"] else None
        scheme = "https" if certificates else "http"
        address, fetch_address = (f"{scheme}://{_bracketed(host)}:{number}" for number in (port, fetch_port))
        if certificates:
            self._print_trust(certificates, address)
        environment = self._environment(hosts, address, fetch_address, secure=certificates is not None)
        ended = run_together(
            _commands(host, port, fetch_port, certificates),
            environment=environment,
            request=request,
            is_up=lambda: _listens(host, port) and _listens(host, fetch_port),
            on_ready=partial(self._print_addresses, address, fetch_address, environment),
        )
        if ended is not None:
            raise CommandError(ended)
        self.stdout.write("Stopped.")

    def _free_ports(self, host: str, port: int, fetch_port: int | None) -> tuple[int, int]:
        check_port_is_free(host, port, option="--port")
        fetch_port = port + 1 if fetch_port is None else fetch_port
        if fetch_port == port:
            raise CommandError(f"--port and --fetch-port are both “{port}”. Choose two ports, such as 8000 and 8001.")
        check_port_is_free(host, fetch_port, option="--fetch-port")
        return port, fetch_port

    def _first_run(self, *, demo_wanted: bool, organization: str) -> None:
        if Organization.objects.exists():
            return
        if demo_wanted:
            first = data.load()
            self.stdout.write(f"Loaded the demo organization {first.login}.")
        else:
            try:
                first = inventory.add_organization(login=organization)
            except ValueError as error:
                raise CommandError(f"--organization: {error}") from error
        administrator = members.add(organization=first, username=ADMINISTRATOR, role=Role.OWNER, by=SYSTEM).user
        members.change_rights(user=administrator, is_active=True, is_staff=True, is_superuser=True, by=SYSTEM)

    def _print_addresses(self, address: str, fetch_address: str, environment: dict[str, str]) -> None:
        self._print_link(address)
        self.stdout.write(f"Policy Store serves pages, telemetry and the management API on {address}")
        self.stdout.write(f"Policy Store serves policy fetches on {fetch_address}")
        self.stdout.write("Set these two variables on runners:")
        self.stdout.write(f"  STEP_API={environment['RUNNER_URL']}/v1")
        self.stdout.write(f"  STEP_TELEMETRY_URL={environment['PUBLIC_URL']}/v1")
        if address.startswith("http://"):
            self.stdout.write("The job hooks accept only https; add --tls to connect them.")
        self.stdout.write("Press Ctrl-C to stop.")
        self.stdout.flush()

    def _print_link(self, address: str) -> None:
        administrator = User.objects.filter(username=ADMINISTRATOR, is_active=True).first()
        if administrator is not None and administrator.last_login is None:
            secret = sign_in.issue_link(user=administrator)
            self.stdout.write("Sign in as the first administrator (the link works once, within an hour):")
            self.stdout.write(f"  {address}{reverse('sign-in-link', args=[secret])}")
        else:
            self.stdout.write(f"For another sign-in link: manage.py sign_in_link --base-url {address}")

    def _certificates(self, hosts: list[str]) -> Certificates:
        try:
            return prepare((settings.DATA_DIR / "tls").absolute(), _certified(hosts))
        except ValueError as error:
            raise CommandError(f"No certificate can be made: {error}") from error

    def _print_trust(self, certificates: Certificates, address: str) -> None:
        path = certificates.authority
        self.stdout.write("Make clients trust the store's certificate authority:")
        self.stdout.write(f"  job hooks and the action: NODE_EXTRA_CA_CERTS={path}")
        self.stdout.write(f"  curl: curl --cacert {path} {address}/v1")
        self.stdout.write(f"  a browser or a whole machine: import {path} as an authority")

    def _hosts(self, host: str, more: list[str]) -> list[str]:
        hosts = [*settings.ALLOWED_HOSTS, _bracketed(host), *more]
        if host in ("0.0.0.0", "::"):  # noqa: S104 the person chose to serve to the network
            hosts.append(socket.gethostname())
        return list(dict.fromkeys(hosts))

    def _environment(self, hosts: list[str], address: str, fetch_address: str, *, secure: bool) -> dict[str, str]:
        public = os.environ.get("PUBLIC_URL")
        return {
            **os.environ,
            "POLICYSTORE_MODE": env.LOCAL,
            "POLICYSTORE_DATA_DIR": str(settings.DATA_DIR),
            "ALLOWED_HOSTS": ",".join(hosts),
            "PUBLIC_URL": public or _reachable(address),
            # A store that was given an address of its own is behind a proxy, which sends fetches to the right process.
            "RUNNER_URL": os.environ.get("RUNNER_URL") or public or _reachable(fetch_address),
            "SECURE_COOKIES": "1" if secure else "0",
        }


def _commands(host: str, port: int, fetch_port: int, certificates: Certificates | None) -> dict[str, list[str]]:
    configuration = "python:policystore.config.gunicorn"
    bind = f"{_bracketed(host)}:{port}"
    root = str(settings.BASE_DIR)
    manage = [sys.executable, os.path.join(root, "manage.py")]
    web = [sys.executable, "-m", "gunicorn", "policystore.config.wsgi", "--config", configuration, "--bind", bind]
    fetch = [*manage, "fetch", "--host", host, "--port", str(fetch_port)]
    if certificates:
        web += ["--certfile", str(certificates.certificate), "--keyfile", str(certificates.key)]
        fetch += ["--certificate", str(certificates.certificate), "--key", str(certificates.key)]
    return {"web": [*web, "--chdir", root], "fetch": fetch, "worker": [*manage, "work"]}


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=LOOK_SECONDS).close()
    except OSError:
        return False
    return True


def _reachable(address: str) -> str:
    """The address, with this machine's name in place of `0.0.0.0` or `[::]`, which nobody else can open."""
    for wildcard in ("//0.0.0.0:", "//[::]:"):
        address = address.replace(wildcard, f"//{socket.gethostname()}:")
    return address


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _certified(hosts: list[str]) -> list[str]:
    """Return the hosts that a certificate can name: neither patterns nor the address of all interfaces."""
    names = [host.strip("[]") for host in hosts]
    return [name for name in names if name not in ("0.0.0.0", "::", "*") and not name.startswith(".")]  # noqa: S104
