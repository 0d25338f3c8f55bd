"""The versions of a policy, read from its history: they outlive the policy."""

from __future__ import annotations

import json
from dataclasses import dataclass

from django.db.models import F, Q, QuerySet

from policystore.audit_log import timeline
from policystore.audit_log.models import HistoryEvent
from policystore.inventory.models import Organization
from policystore.policies.models import Policy
from policystore.policy_language.diff import DiffRow, side_by_side
from policystore.policy_language.document import read_reply
from policystore.web.pagination import Page, newest_first

PER_PAGE = 50
# What is not needed in a list, and may be long.
TEXTS = ("text_before", "text_after", "reply_after", "scopes_added", "scopes_removed")


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a history: a policy of the organization, or the id and last name of one that was deleted."""

    organization: Organization
    policy_id: int
    name: str
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class Version:
    """A version: its name, description and text, and the JSON that runners got.

    `event` names who saved it and when.
    """

    number: int
    name: str
    description: str
    text: str
    reply: str
    event: HistoryEvent | None = None

    @property
    def shown_reply(self) -> str:
        """The JSON, indented."""
        return json.dumps(read_reply(self.reply), indent=2)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two versions; names and descriptions are (before, after) or None, rows a diff or empty.

    `rows_left_out` and `reply_rows_left_out` are how many rows of each diff come after those.
    """

    rows: list[DiffRow]
    rows_left_out: int
    reply_rows: list[DiffRow]
    reply_rows_left_out: int
    names: tuple[str, str] | None
    descriptions: tuple[str, str] | None

    @property
    def is_folded(self) -> bool:
        """True if lines are left out."""
        if self.rows_left_out or self.reply_rows_left_out:
            return True
        return any(row.kind == "gap" for row in (*self.rows, *self.reply_rows))

    @property
    def is_empty(self) -> bool:
        """True if nothing differs."""
        return not (self.rows or self.reply_rows or self.names or self.descriptions)


def subject(organization: Organization, policy_id: int) -> Subject | None:
    """The policy with this id, also one that was deleted; None where the organization never had it."""
    last = timeline.events_of(organization, policy_id).defer(*TEXTS).first()
    if last is None:
        return None
    policy = Policy.objects.select_related("organization").filter(pk=policy_id, organization=organization).first()
    return Subject(organization, policy_id, policy.name if policy else last.subject_name, policy)


def page(of: Subject, *, before: str = "") -> Page[HistoryEvent]:
    """One page of versions without their texts, newest first."""
    return newest_first(_saved(of).defer(*TEXTS), size=PER_PAGE, before=before)


def version(of: Subject, number: int) -> Version | None:
    """A version with its texts; None where there is none of this number."""
    event = _saved(of).filter(version=number).order_by("pk").first()
    if event is None:
        return None
    return Version(
        number=number,
        name=event.subject_name,
        description=event.description_after,
        text=event.text_after,
        reply=_reply(of, number),
        event=event,
    )


def current(policy: Policy) -> Version:
    """The saved policy as a version."""
    return Version(policy.version, policy.name, policy.description, policy.text, policy.reply)


def latest(of: Subject) -> int:
    """The number of the newest version; 0 where none is kept."""
    return _saved(of).order_by("-pk").values_list("version", flat=True).first() or 0


def compare(before: Version, after: Version, *, full: bool = False) -> Comparison:
    """Compare two versions; `full` for all lines instead of the first of those around each change."""
    context, most = (None, None) if full else (timeline.UNCHANGED_LINES_SHOWN, timeline.ROWS_SHOWN)
    rows = side_by_side(before.text, after.text, context=context)
    reply_rows = side_by_side(before.shown_reply, after.shown_reply, context=context)
    return Comparison(
        rows=rows[:most],
        rows_left_out=len(rows) - len(rows[:most]),
        reply_rows=reply_rows[:most],
        reply_rows_left_out=len(reply_rows) - len(reply_rows[:most]),
        names=_pair(before.name, after.name),
        descriptions=_pair(before.description, after.description),
    )


def _reply(of: Subject, number: int) -> str:
    if of.policy is not None and of.policy.version == number:
        return of.policy.reply
    # What a version means to runners may change later, without a version of its own: then the last counts.
    replies = timeline.events_of(of.organization, of.policy_id).filter(version=number).exclude(reply_after="")
    return replies.values_list("reply_after", flat=True).first() or ""


def _pair(before: str, after: str) -> tuple[str, str] | None:
    return (before, after) if before != after else None


def _saved(of: Subject) -> QuerySet[HistoryEvent]:
    """The events that made a version: what was written changed, or what runners get of it, as by an endpoint set."""
    unchanged = Q(
        text_before=F("text_after"), name_before="", description_before=F("description_after"), reply_after=""
    )
    return timeline.events_of(of.organization, of.policy_id).exclude(text_after="").exclude(unchanged)
