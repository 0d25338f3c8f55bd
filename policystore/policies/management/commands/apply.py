"""Changes the store to match a folder of policies."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from policystore.accounts.models import Actor, User
from policystore.inventory.models import Organization
from policystore.policies.approvals.commands import NeedsApproval
from policystore.policies.as_code import apply as as_code
from policystore.policies.as_code import folder
from policystore.policies.as_code import plan as plans
from policystore.policies.errors import PolicyError
from policystore.policy_language import bundle
from policystore.policy_language.bundle import Bundle

LONGEST_NAME = 255


class Command(BaseCommand):
    """All or nothing; a second time changes nothing."""

    help = "Change an organization's policies and attachments to match a folder, and record it in the history."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="a folder that export wrote, as it is in Git now")
        parser.add_argument("--by", default="", help="the name in the history (default: the user of this machine)")
        parser.add_argument(
            "--source", default="", help="where the folder comes from, such as octo-org/policies@1f3a9c"
        )
        parser.add_argument("--approved-by", default="", help="the second person, if four eyes are on")
        parser.add_argument("--plan", default="", help="the digest of a plan; apply only this plan")
        parser.add_argument(
            "--keep-missing",
            action="store_true",
            help="keep managed policies that are missing from the folder, but stop managing them",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        by = options["by"].strip() or _user_of_machine()
        if len(by) > LONGEST_NAME:
            raise CommandError(f"--by is too long (maximum {LONGEST_NAME} characters).")
        try:
            wanted = bundle.read_files(folder.read_folder(options["folder"]))
            approved_by = _approver(options["approved_by"], bundle=wanted, by=by)
            if approved_by and not options["plan"]:
                raise CommandError(
                    "--approved-by needs --plan: the digest of the plan that the second person approved."
                )
            done = as_code.apply(
                bundle=wanted,
                by=Actor(by, "code", approved_by),
                source=options["source"],
                expected=options["plan"],
                keep_missing=options["keep_missing"],
            )
        except as_code.PlanChanged as refusal:
            self.stderr.write("\n".join(plans.lines(refusal.plan)))
            raise CommandError(str(refusal)) from refusal
        except NeedsApproval as waiting:
            raise CommandError("Four eyes are on: name the second person with --approved-by.") from waiting
        except (folder.Unreadable, bundle.BrokenBundle, PolicyError) as refusal:
            raise CommandError(str(refusal)) from refusal
        number = len(done.verbs)
        self.stdout.write(f"{number} change{'s' if number != 1 else ''} applied" if number else "Nothing to change.")


def _user_of_machine() -> str:
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError) as error:
        # As in containers whose user has a number alone.
        raise CommandError("The current user has no name on this machine. Set a name with --by.") from error


def _approver(username: str, *, bundle: Bundle, by: str) -> str:
    """Return the user name of the second person, who agreed to the changes; empty if none is named.

    Raises CommandError for the person who applies the bundle, and for one who may not make its changes; BrokenBundle.
    """
    name = username.strip()
    if not name:
        return ""
    if name.casefold() == by.casefold():
        raise CommandError("--approved-by names the person who applies the changes. Name a second person.")
    organization = Organization.objects.filter(key=bundle.organization).first()
    person = _member(name, organization)
    if organization is None or person is None:
        raise CommandError(f"--approved-by: {name} is not a member of {bundle.organization}; name a member.")
    if not person.has_perm("policies.change_policy", organization):
        raise CommandError(
            f"--approved-by: {name} may not change policies of {bundle.organization}; name a member who may."
        )
    may_change_hosts = person.has_perm("policies.change_neverallowhost", organization)
    if not may_change_hosts and plans.plan(bundle, organization).host_changes:
        raise CommandError(
            f"--approved-by: only an owner may approve changes to never-allow hosts, and {name} is not an owner."
        )
    return person.username


def _member(username: str, organization: Organization | None) -> User | None:
    if organization is None:
        return None
    members = User.objects.filter(username__iexact=username, memberships__organization=organization, is_active=True)
    return members.first()
