"""Writes the files of GitHub's firewall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from policystore.enforcers.github_firewall import PATH, RepositoryFile
from policystore.policies.firewall_files import Files
from policystore.policies.management.commands.export import organization_named


class Command(BaseCommand):
    """One folder for each repository, with the file at the path where GitHub looks for it."""

    help = "Write the file of GitHub's firewall for each repository to a folder, and print what each file widens."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="the folder to write to")
        parser.add_argument("--organization", default="", help="its login; required if the store has several")
        parser.add_argument("--no-default-urls", action="store_true", help="drop GitHub's own default list")

    def handle(self, *args: Any, **options: Any) -> None:
        organization, written = organization_named(options["organization"]), 0
        for repository, file in Files(organization, default_hosts=not options["no_default_urls"]).all():
            path = options["folder"] / repository.name / PATH
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, encoding="utf-8")
            self._describe(repository.name, file)
            written += 1
        self.stdout.write(f"{written} files written to {options['folder']}")

    def _describe(self, repository: str, file: RepositoryFile) -> None:
        for workflow, hosts in file.widening.items():
            self.stdout.write(f"{repository}: {workflow} may also reach {', '.join(hosts)}")
        for what, names in (
            ("no policy applies, but the file does, to", file.unprotected),
            ("the file only logs, because of the policies of", file.audited),
            ("wildcards are left out:", file.left_out),
        ):
            if names:
                self.stdout.write(f"{repository}: {what} {', '.join(names)}")
