"""Makes the store what a folder of policies says."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.accounts.actor import Actor
from policystore.accounts.models import User
from policystore.inventory.models import Organization
from policystore.operations import bundle_files, plan_text
from policystore.policies.approvals.rules import NeedsApproval
from policystore.policies.as_code import apply as as_code
from policystore.policies.as_code import plan as plans
from policystore.policies.errors import PolicyError
from policystore.policy_language import bundle, bundle_parser
from policystore.policy_language.bundle import Bundle

LONGEST_NAME = 255


class Command(BaseCommand):
    """All or nothing; a second time changes nothing."""

    help = "Make an organization's policies and attachments what a folder says, with history."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="a folder that export wrote, as it is in Git now")
        parser.add_argument("--by", default="", help="who is named in the history (the user of this machine)")
        parser.add_argument(
            "--source", default="", help="where the folder comes from, such as octo-org/policies@1f3a9c"
        )
        parser.add_argument("--approved-by", default="", help="the second person, where the organization wants one")
        parser.add_argument("--plan", default="", help="the digest of a plan: anything else is refused")
        parser.add_argument(
            "--keep-missing", action="store_true", help="release managed policies that the folder lost; do not delete"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        by = options["by"].strip() or _user_of_machine()
        if len(by) > LONGEST_NAME:
            raise CommandError(f"--by: has more than {LONGEST_NAME} characters.")
        try:
            wanted = bundle_parser.read_files(bundle_files.read_folder(options["folder"]))
            approved_by = _approver(options["approved_by"], bundle=wanted, by=by)
            done = as_code.apply(
                bundle=wanted,
                by=Actor(by, "code", approved_by),
                source=options["source"],
                expected=options["plan"],
                keep_missing=options["keep_missing"],
            )
        except as_code.PlanChanged as refusal:
            self.stderr.write("\n".join(plan_text.lines(refusal.plan)))
            raise CommandError(str(refusal)) from refusal
        except NeedsApproval as waiting:
            raise CommandError("Four eyes are on: name the second person with --approved-by.") from waiting
        except (bundle_files.Unreadable, bundle.BrokenBundle, PolicyError) as refusal:
            raise CommandError(str(refusal)) from refusal
        number = len(done.verbs)
        self.stdout.write(f"{number} change{'s' if number != 1 else ''} applied" if number else "Nothing to change.")


def _user_of_machine() -> str:
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError) as error:
        # As in containers whose user has a number alone.
        raise CommandError("This machine has no name for its user; say with --by who applies.") from error


def _approver(username: str, *, bundle: Bundle, by: str) -> str:
    """Return the user name of the second person, who agreed to the changes; empty if none is named.

    Raises CommandError for the person who applies the bundle, and for one who may not make its changes; BrokenBundle.
    """
    name = username.strip()
    if not name:
        return ""
    if name.casefold() == by.casefold():
        raise CommandError("--approved-by names the one who applies; name a second person.")
    organization = bundle.organization
    of = Organization.objects.filter(key=organization).first()
    members = User.objects.filter(username__iexact=name, memberships__organization=of, is_active=True)
    person = members.first() if of else None
    if person is None:
        raise CommandError(f"--approved-by: {name} is not a member of {organization}; name a member.")
    if not person.has_perm("policies.change_policy", of):
        raise CommandError(f"--approved-by: {name} may not change policies of {organization}; name a member who may.")
    if not person.has_perm("policies.change_neverallowhost", of) and plans.plan(bundle, of).host_changes:
        raise CommandError(
            f"--approved-by: only an owner may approve changes to never-allow hosts, and {name} is not an owner."
        )
    return person.username
