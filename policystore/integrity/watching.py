"""The worker's part: compares the whole store again and again, and keeps what it found for pages and monitoring."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from policystore.audit_log.models import IntegrityProblem
from policystore.integrity.comparing import Comparison, Problem, Slice, by_subject
from policystore.integrity.rows import Subject

logger = logging.getLogger(__name__)

SECONDS_A_TURN = 0.5
# From the beginning of one pass to that of the next, where the first takes no longer.
PASS_SECONDS = 20.0


class Watch:
    """Compares as much as fits into a turn and continues there in the next. What it remembers is only a saving."""

    def __init__(self) -> None:
        self._comparison = Comparison()
        self._slices: Iterator[Slice] = iter(())
        self._problems: list[Problem] = []
        self._owners: set[str] = set()
        self._next_pass_at = 0.0

    def __call__(self) -> bool:
        """Do a turn; whether it completed a pass over the whole store."""
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
    with transaction.atomic():
        for subject in known.keys() - found.keys():
            _rows(owner, subject).delete()
        for subject in (subject for subject in found if found[subject] != known.get(subject)):
            _rows(owner, subject).delete()
            IntegrityProblem.objects.bulk_create(
                [
                    IntegrityProblem(
                        owner=owner,
                        subject_type=subject.type,
                        subject_id=subject.id,
                        problems=found[subject],
                        found_at=timezone.now(),
                    )
                ],
                ignore_conflicts=True,
            )
    for subject, sentences in found.items():
        for sentence in sentences:
            if sentence not in known.get(subject, ()):
                logger.error("The database and the history differ. %s", sentence)
    for subject in known.keys() - found.keys():
        logger.warning("Resolved: the %s %s of %s is as the history recorded it.", subject.type, subject.id, owner)


def _rows(owner: str, subject: Subject) -> QuerySet[IntegrityProblem]:
    return IntegrityProblem.objects.filter(owner=owner, subject_type=subject.type, subject_id=subject.id)
