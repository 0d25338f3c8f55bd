"""Reports what is wrong with this installation."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from policystore.operations import doctor
from policystore.operations.health import Checked, Finding, Level
from policystore.web.redaction import redact

WIDTH = max(map(len, {**doctor.WITHOUT_DATABASE, **doctor.WITHOUT_TABLES, **doctor.WITH_TABLES}))


class Command(BaseCommand):
    """`manage.py doctor`; can run while the store runs, and writes only a heartbeat."""

    help = "Report what is wrong with this installation; exit code 1 if anything is."
    # It runs Django's checks itself, to report them like the rest.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="write one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        checked = []
        for one in doctor.examine():
            checked.append(one)
            if not options["json"]:
                self.stdout.write(_line(*one))
                self.stdout.flush()
        healthy = not any(finding.is_problem for _, finding in checked)
        if options["json"]:
            self.stdout.write(json.dumps({"healthy": healthy, "checks": [_as_json(*one) for one in checked]}, indent=2))
        else:
            self.stdout.write(_summary(checked))
        if not healthy:
            sys.exit(1)


def _line(name: str, finding: Finding) -> str:
    return f"{finding.level.value:8} {name:{WIDTH}}  {redact(finding.message)}"


def _as_json(name: str, finding: Finding) -> dict[str, str]:
    return {"name": name, "level": finding.level.value, "message": redact(finding.message)}


def _summary(checked: list[Checked]) -> str:
    counts = {level: sum(finding.level is level for _, finding in checked) for level in Level}
    return f"Problems: {counts[Level.PROBLEM]}, warnings: {counts[Level.WARNING]}."
