"""Writes the history to a file."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.audit_log import export
from policystore.inventory.models import Organization
from policystore.policies.pages.forms import ExportForm
from policystore.web import csv_export

FILTERS = {
    "person": "who made the change",
    "policy": "what the policy is or was called",
    "scope": "a part of a scope that was added or removed",
    "kind": "the kind of event, such as updated",
    "from": "the first day, or the first time",
    "to": "the last day, or the time before which it ends",
    "of": "history or accounts: the events of policies alone, or of keys, members and settings",
}


class Command(BaseCommand):
    """`manage.py export_history --organization NAME [--format csv|jsonl] [--output FILE] [filters]`; no time limit."""

    help = "Write the history of an organization as CSV or JSON Lines."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", metavar="NAME", required=True)
        parser.add_argument("--format", choices=sorted(export.FORMATS), default="csv")
        parser.add_argument("--output", metavar="FILE", type=Path, help="the file to write (default: standard output)")
        for name, what in FILTERS.items():
            parser.add_argument(f"--{name}", metavar=name.upper(), default="", help=what)

    def handle(self, *args: Any, **options: Any) -> None:
        organization = Organization.objects.filter(key=options["organization"].lower()).first()
        if organization is None:
            raise CommandError(f"No organization named {options['organization']} is known.")
        form = ExportForm({name: options[name] for name in (*FILTERS, "format")})
        if not form.is_valid():
            problems = [f"--{name}: {error}" for name, errors in form.errors.items() for error in errors]
            raise CommandError(" ".join(problems))
        found = export.rows(organization, form.chosen(organization), of=form.cleaned_data["of"])
        texts = csv_export.in_chunks(export.FORMATS[options["format"]][1](found))
        if options["output"] is None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                # As in a file, whatever letters the terminal has.
                sys.stdout.reconfigure(encoding="utf-8")
            sys.stdout.writelines(texts)
            return
        try:
            with options["output"].open("w", encoding="utf-8", newline="") as file:
                file.writelines(texts)
        except OSError as error:
            raise CommandError(f"The history could not be written: {error}") from error
