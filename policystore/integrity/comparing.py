"""Compares what decides what runners get with what the history recorded, a slice and a snapshot at a time.

Policies, endpoint sets, attachments, exceptions, break glasses, never-allow hosts, API keys and the blocklist are only
ever changed together with a history event. So replaying the events gives every row that should exist, and any other
row, or any other value, was written past Policy Store. The history itself is verified by its hash chain
(`policystore.audit_log.hash_chain`).

The worker compares again and again, and keeps what it found for pages and monitoring.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet, Subquery
from django.utils import timezone

from policystore.accounts.models import AccountEvent
from policystore.audit_log import event_types, hash_chain
from policystore.audit_log.models import HistoryEvent, IntegrityProblem
from policystore.db.transactions import snapshot
from policystore.integrity import recorded, stored
from policystore.integrity.recorded import RecordedPolicy, RecordedRules, Row, Rows, Subject, differences
from policystore.inventory.models import Organization
from policystore.policies import compiler
from policystore.policies.errors import CannotRecompile
from policystore.policies.models import Policy
from policystore.policy_language.document import check

logger = logging.getLogger(__name__)

SLICE: Final = 100
SECONDS_A_TURN = 0.5
# From the start of one pass to that of the next, unless the first takes longer.
PASS_SECONDS = 20.0
SubjectType = HistoryEvent.SubjectType
# Every column but the long texts, which are read for one event of a policy or set at most.
_SHORT: Final = (
    "pk",
    "kind",
    "subject_id",
    "subject_name",
    "at",
    "version",
    "scopes_added",
    "scopes_removed",
    "reason",
    "details",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the database that the history does not account for; `sentence` names it for people."""

    subject: Subject
    sentence: str


@dataclass(frozen=True, slots=True)
class Slice:
    """The result for one slice of an organization; `is_last` where all of the organization has been compared."""

    owner: str
    problems: tuple[Problem, ...] = ()
    is_last: bool = False


@dataclass(slots=True)
class Comparison:
    """Compares stores again and again; what has not changed since it was last found in order is only read.

    `_good` has, for each subject that was in order, a hash of its rows and the newest event that they account for.
    """

    _good: dict[tuple[str, Subject], int] = field(default_factory=dict)
    _rules: dict[str, RecordedRules] = field(default_factory=dict)

    def slices(self, *, owners: Iterable[str] | None = None) -> Iterator[Slice]:
        """Compare the given organizations, or all. No transaction is open between two slices."""
        for owner in list_owners() if owners is None else owners:
            yield from self._slices_of(owner)

    def _slices_of(self, owner: str) -> Iterator[Slice]:
        with snapshot():
            found = Organization.objects.filter(key=owner).first()
            problems = list(self._organization_slice(owner, found))
        yield Slice(owner, tuple(problems))
        if found is not None:
            yield from self._policies(found)
        with snapshot():
            problems = list(_missing(owner))
        yield Slice(owner, tuple(problems), is_last=True)

    def _organization_slice(self, owner: str, organization: Organization | None) -> Iterator[Problem]:
        if organization is None:
            yield from _missing_organization(owner)
            return
        yield from self._organization(organization)
        yield from self._sets(organization)
        yield from self._accounts(organization)

    def _organization(self, organization: Organization) -> Iterator[Problem]:
        owner, subject = organization.key, Subject(SubjectType.ORGANIZATION, organization.pk)
        if organization.login.lower() != owner:
            yield Problem(subject, f"{owner}: the column “login” of the organization is {organization.login}.")
        events = _events(owner).filter(kind__in=recorded.ORGANIZATION_KINDS)
        newest, rows = _newest(events), stored.organization_rows(organization)
        if not self._is_known(owner, subject, newest, rows):
            wanted = recorded.organization_rows(_short(events))
            yield from self._compared(owner, subject, "", newest, rows, wanted)

    def _accounts(self, organization: Organization) -> Iterator[Problem]:
        owner, subject = organization.key, Subject("accounts", organization.pk)
        events = AccountEvent.objects.filter(owner=owner)
        # An entry for everyone is in the history of each organization that existed then: the first one has them all.
        is_first = not Organization.objects.filter(pk__lt=organization.pk).exists()
        every = stored.account_rows(organization)
        newest, rows = _newest(events), every if is_first else _of_one(every)
        if not self._is_known(owner, subject, newest, rows):
            wanted = recorded.account_rows(events.order_by("pk").iterator())
            yield from self._compared(owner, subject, "", newest, rows, wanted if is_first else _of_one(wanted))

    def _sets(self, organization: Organization) -> Iterator[Problem]:
        owner, rules = organization.key, self._rules_of(organization.key)
        rows = stored.set_rows(organization)
        for set_id in sorted(rows.keys() | rules.sets.keys()):
            subject = Subject(SubjectType.ENDPOINT_SET, set_id)
            wanted = recorded.set_rows(organization.pk, rules.sets.get(set_id))
            found = rows.get(set_id, {})
            columns = found.get(Row("endpoint set")) or rules.sets[set_id]
            yield from self._compared(owner, subject, f" endpoint set {columns['name']}:", rules.newest, found, wanted)

    def _policies(self, organization: Organization) -> Iterator[Slice]:
        newest = HistoryEvent.objects.filter(owner=organization.key, subject_id=OuterRef("pk")).order_by("-pk")
        policies = Policy.objects.filter(organization=organization).order_by("pk")
        policies = policies.annotate(newest_event=Subquery(newest.values("pk")[:1]))
        last = 0
        while True:
            with snapshot():
                found = list(policies.filter(pk__gt=last)[:SLICE])
                problems = list(self._policy_slice(organization, found))
            yield Slice(organization.key, tuple(problems))
            if len(found) < SLICE:
                return
            last = found[-1].pk

    def _policy_slice(self, organization: Organization, policies: Collection[Policy]) -> Iterator[Problem]:
        owner, rules = organization.key, self._rules_of(organization.key)
        rows = stored.policy_rows(policies)
        doubtful = {
            policy.pk: policy
            for policy in policies
            if not self._is_known(owner, _of_policy(policy), _basis(policy, rules), rows[policy.pk], policy.search_text)
        }
        for policy_id, replayed in _replayed(owner, doubtful.keys()).items():
            policy = doubtful[policy_id]
            subject, about, basis = _of_policy(policy), f" policy {policy.name}:", _basis(policy, rules)
            wanted = replayed.rows(organization.pk, rules)
            problems = list(self._compared(owner, subject, about, basis, rows[policy_id], wanted, policy.search_text))
            if not problems:
                sentences = _recompiled(policy, organization, rules)
                problems = [Problem(subject, f"{owner}:{about} {sentence}") for sentence in sentences]
                if problems:
                    self._good.pop((owner, subject), None)
            yield from problems

    def _rules_of(self, owner: str) -> RecordedRules:
        newest = _newest(_events(owner).filter(kind__in=(*recorded.SET_KINDS, *recorded.NEVER_ALLOW_KINDS)))
        known = self._rules.get(owner)
        if known is None or known.newest != newest:
            known = self._rules[owner] = _replayed_rules(owner, newest)
        return known

    def _is_known(self, owner: str, subject: Subject, basis: object, rows: Rows, *more: object) -> bool:
        return self._good.get((owner, subject)) == _hash(basis, rows, *more)

    def _compared(
        self, owner: str, subject: Subject, about: str, basis: object, rows: Rows, wanted: Rows, *more: object
    ) -> Iterator[Problem]:
        sentences = list(differences(rows, wanted))
        if sentences:
            self._good.pop((owner, subject), None)
        else:
            self._good[owner, subject] = _hash(basis, rows, *more)
        for sentence in sentences:
            yield Problem(subject, f"{owner}:{about} {sentence}")


def list_owners() -> list[str]:
    """Every organization that the store or its history has, by its key."""
    return sorted({*hash_chain.owners(), *Organization.objects.values_list("key", flat=True)})


def _of_one(rows: Rows) -> Rows:
    return {row: columns for row, columns in rows.items() if row.kind != recorded.STORE_WIDE_ENTRY}


def _of_policy(policy: Policy) -> Subject:
    return Subject(SubjectType.POLICY, policy.pk)


def _basis(policy: Policy, rules: RecordedRules) -> tuple[int | None, int]:
    newest: int | None = policy.newest_event  # type: ignore[attr-defined]
    return newest, rules.newest


def _hash(basis: object, rows: Rows, *more: object) -> int:
    # Strings hash with a key of this process, so that no one can construct other rows with the same hash.
    return hash((basis, frozenset((row, str(columns)) for row, columns in rows.items()), *more))


def _events(owner: str) -> QuerySet[HistoryEvent]:
    return HistoryEvent.objects.filter(owner=owner)


def _newest(events: QuerySet[HistoryEvent] | QuerySet[AccountEvent]) -> int:
    newest: int | None = events.aggregate(newest=Max("pk"))["newest"]
    return newest or 0


def _short(events: QuerySet[HistoryEvent]) -> QuerySet[HistoryEvent]:
    return events.only(*_SHORT).order_by("pk")


def _replayed_rules(owner: str, newest: int) -> RecordedRules:
    about_sets = _events(owner).filter(subject_type=SubjectType.ENDPOINT_SET, kind__in=recorded.SET_KINDS)
    last = about_sets.order_by().values("subject_id").annotate(newest=Max("pk")).values_list("newest", flat=True)
    of_hosts = _short(_events(owner).filter(kind__in=recorded.NEVER_ALLOW_KINDS))
    return RecordedRules.replay(newest, HistoryEvent.objects.filter(pk__in=list(last)), of_hosts)


def _replayed(owner: str, policy_ids: Collection[int]) -> Mapping[int, RecordedPolicy]:
    """The policies as their events record them; each that is asked for is in the result."""
    replayed = {policy_id: RecordedPolicy() for policy_id in policy_ids}
    if not replayed:
        return replayed
    events = _events(owner).filter(subject_type=SubjectType.POLICY, subject_id__in=list(replayed))
    for event in _short(events.filter(kind__in=recorded.POLICY_KINDS)):
        replayed[event.subject_id].apply(event)
    last = [found.content.pk for found in replayed.values() if found.content is not None]
    for event in HistoryEvent.objects.filter(pk__in=last):
        replayed[event.subject_id].content = event
    return replayed


def _missing_organization(owner: str) -> Iterator[Problem]:
    subject = Subject(SubjectType.ORGANIZATION, 0)
    yield Problem(subject, f"{owner}: The organization has a history but is missing from the database.")
    wanted = {
        **recorded.organization_rows(_short(_events(owner).filter(kind__in=recorded.ORGANIZATION_KINDS))),
        **recorded.account_rows(AccountEvent.objects.filter(owner=owner).order_by("pk").iterator()),
    }
    for sentence in differences({}, _of_one(wanted)):
        yield Problem(subject, f"{owner}: {sentence}")


def _missing(owner: str) -> Iterator[Problem]:
    """Policies that the history has, but the database does not, or only in another organization."""
    deleted = _events(owner).filter(subject_id=OuterRef("subject_id"), kind=event_types.DELETED)
    there = Policy.objects.filter(pk=OuterRef("subject_id"), organization__key=owner)
    created = _events(owner).filter(kind=event_types.CREATED).filter(~Exists(there), ~Exists(deleted))
    for event in created.only(*_SHORT).order_by("pk"):
        subject = Subject(SubjectType.POLICY, event.subject_id)
        yield Problem(subject, f"{owner}: policy {event.subject_name}: The policy is missing from the database.")


def _recompiled(policy: Policy, organization: Organization, rules: RecordedRules) -> Iterator[str]:
    """The columns that differ from what the policy's text compiles to now; none if it cannot be compiled."""
    fresh = copy.copy(policy)
    fresh.organization = organization
    try:
        document = compiler.readable(f"policy {policy.name}", check(policy.text).document, rules.rules)
    except CannotRecompile:
        return
    compiler.fill(fresh, document=document, with_rules=rules.rules)
    if fresh.reply != policy.reply:
        yield "Its text compiles to another reply than the one that is served. Save the policy to serve what it says."
    elif fresh.search_text != policy.search_text:
        yield "The column “search text” of the policy is not what its text says."


def by_subject(problems: Iterable[Problem]) -> Mapping[Subject, list[str]]:
    """The sentences about each subject."""
    found: defaultdict[Subject, list[str]] = defaultdict(list)
    for problem in problems:
        found[problem.subject].append(problem.sentence)
    return found


class Watch:
    """Compares as much as fits into a turn, and continues there in the next. What it remembers only saves time."""

    def __init__(self) -> None:
        self._comparison = Comparison()
        self._slices: Iterator[Slice] = iter(())
        self._problems: list[Problem] = []
        self._owners: set[str] = set()
        self._next_pass_at = 0.0

    def __call__(self) -> bool:
        """Do a turn; return True if it completed a pass over the whole store."""
        began = time.monotonic()
        if began >= self._next_pass_at:
            self._slices, self._problems, self._owners = self._comparison.slices(), [], set()
            self._next_pass_at = float("inf")
        while time.monotonic() < began + SECONDS_A_TURN:
            found = next(self._slices, None)
            if found is None:
                return self._complete(began)
            self._take(found)
        return False

    def _complete(self, now: float) -> bool:
        was_running = self._next_pass_at == float("inf")
        if was_running:
            IntegrityProblem.objects.exclude(owner__in=self._owners).delete()
            self._next_pass_at = now + PASS_SECONDS
        return was_running

    def _take(self, found: Slice) -> None:
        self._problems += found.problems
        if found.is_last:
            keep(found.owner, self._problems)
            self._owners.add(found.owner)
            self._problems = []


def keep(owner: str, problems: list[Problem]) -> None:
    """Store what a pass found in an organization in place of what the one before found; log what is new."""
    found = by_subject(problems)
    known = {
        Subject(row.subject_type, row.subject_id): row.problems for row in IntegrityProblem.objects.filter(owner=owner)
    }
    if found == known:
        return
    changed = [subject for subject in sorted({*known, *found}) if found.get(subject) != known.get(subject)]
    fresh = [
        IntegrityProblem(
            owner=owner,
            subject_type=subject.type,
            subject_id=subject.id,
            problems=found[subject],
            found_at=timezone.now(),
        )
        for subject in changed
        if subject in found
    ]
    with transaction.atomic():
        for subject in changed:
            IntegrityProblem.objects.filter(owner=owner, subject_type=subject.type, subject_id=subject.id).delete()
        IntegrityProblem.objects.bulk_create(fresh, ignore_conflicts=True)
    for subject, sentences in found.items():
        for sentence in sentences:
            if sentence not in known.get(subject, ()):
                logger.error("The database and the history differ. %s", sentence)
    for subject in known.keys() - found.keys():
        logger.warning("Resolved: the %s %s of %s is as the history recorded it.", subject.type, subject.id, owner)
