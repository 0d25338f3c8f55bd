"""Mends what an earlier release compiled, where the same text is read otherwise now, without anybody saving it.

An earlier release stopped reading at 200 problems, warnings among them: what stood below was neither served nor kept,
so that a policy that blocks could be served as audit, and a set could lose endpoints.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import OperationalError
from django.db.models import QuerySet
from django.utils import timezone

from policystore.accounts.actors import SYSTEM
from policystore.documents import set_names
from policystore.documents.yaml_guard import MAX_PROBLEMS
from policystore.policies.actions import compiling, endpoint_sets, policies, staged, staging
from policystore.policies.errors import CannotRecompile, PolicyError
from policystore.policies.models import EndpointSet, EndpointSetUse, HistoryEvent, Policy, StagedVersion

logger = logging.getLogger(__name__)

REASON = "Read anew: this release reads the text differently from an earlier one."
SECONDS_A_TURN = 0.5
# The release before may go on saving on another machine for a while after this one has looked through everything.
REST_SECONDS = 600.0
# Longer than any change takes from its event to its end, and than clocks are apart.
OVERLAP = timedelta(minutes=10)
# Endpoints draw at most six warnings each (host, case, port, risk, listed before, second port), so that a text with
# fewer words holds no more of them than were read through.
FEWEST_WORDS = MAX_PROBLEMS // 6 + 1
_WORD = re.compile(r"[^\s,]+")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What has a text and something compiled of it: its rows, how one is named, whether it is compiled wrongly, and
    what mends it. A row's changes have history events of `subject`, with the row's id."""

    rows: Callable[[], QuerySet[Any]]
    subject: str
    named: Callable[[Any], str]
    is_stale: Callable[[Any], bool]
    mend: Callable[[Any], bool]


# Policies are compiled with sets.
_KINDS = (
    _Kind(
        rows=lambda: EndpointSet.objects.select_related("organization"),
        subject=HistoryEvent.SubjectType.ENDPOINT_SET,
        named=lambda found: f"endpoint set {found.name} of {found.organization.login}",
        is_stale=lambda found: endpoint_sets.listed(found) != found.endpoints,
        mend=lambda found: endpoint_sets.read_anew(endpoint_set=found, by=SYSTEM, reason=REASON),
    ),
    _Kind(
        rows=lambda: Policy.objects.select_related("organization"),
        subject=HistoryEvent.SubjectType.POLICY,
        named=lambda policy: f"policy {policy.name} of {policy.organization.login}",
        is_stale=lambda policy: compiling.is_stale(policy) or _lacks_uses(policy),
        mend=lambda policy: policies.read_anew(policy=policy, by=SYSTEM, reason=REASON),
    ),
    _Kind(
        rows=lambda: StagedVersion.objects.select_related("policy__organization"),
        subject=HistoryEvent.SubjectType.POLICY,
        named=lambda found: f"staged version of {found.policy.name} in {found.policy.organization.login}",
        is_stale=staging.compile_anew,
        mend=lambda found: staged.read_anew(staged=found, by=SYSTEM, reason=REASON),
    ),
)


class Rereading:
    """Looks through all sets, policies and staged versions, some of it each turn, and after a rest through what has
    changed since, and what could not be mended.

    How far it is stands in memory: the next process begins from the start, and finds nothing to mend.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[_Kind, int]] = []
        self._unmended: set[tuple[_Kind, int]] = set()
        self._seen: int | None = None
        self._resting_until = 0.0

    def __call__(self) -> None:
        """Look through as much as fits between two turns."""
        began = time.monotonic()
        if not self._waiting and began >= self._resting_until:
            self._begin()
            self._resting_until = began + REST_SECONDS
        while self._waiting and time.monotonic() < began + SECONDS_A_TURN:
            self._look_at(*self._waiting.pop())

    def _begin(self) -> None:
        earlier = HistoryEvent.objects.filter(at__lt=timezone.now() - OVERLAP).order_by("-pk")
        newest = earlier.values_list("pk", flat=True).first() or 0
        for kind in reversed(_KINDS):
            again = {pk for other, pk in self._unmended if other is kind}
            self._waiting += [(kind, pk) for pk in sorted(self._ids(kind) | again, reverse=True)]
        self._seen = newest

    def _ids(self, kind: _Kind) -> set[int]:
        if self._seen is None:
            return set(kind.rows().values_list("pk", flat=True))
        events = HistoryEvent.objects.filter(pk__gt=self._seen, subject_type=kind.subject)
        return set(events.values_list("subject_id", flat=True))

    def _look_at(self, kind: _Kind, pk: int) -> None:
        known = (kind, pk) in self._unmended
        self._unmended.add((kind, pk))
        row = _row(kind, pk)
        try:
            if row is not None and kind.is_stale(row) and kind.mend(row):
                logger.info("Read the %s anew", kind.named(row))
        except PolicyError as refusal:
            if not known:
                logger.warning("Cannot read the %s anew: %s", kind.named(row), refusal)
        except OperationalError:
            raise
        except Exception:
            logger.exception("Cannot read the %s anew", kind.named(row))
        else:
            self._unmended.discard((kind, pk))


def unreadable(*, seconds: float) -> tuple[list[str], bool]:
    """What cannot be compiled now and why, a sentence each, and whether all was looked through in that time."""
    found: list[str] = []
    ends = time.monotonic() + seconds
    for kind in _KINDS:
        for pk, text in kind.rows().order_by("pk").values_list("pk", "text").iterator(chunk_size=100):
            if time.monotonic() > ends:
                return found, False
            row = kind.rows().filter(pk=pk).first() if _may_hold_much(text) else None
            try:
                if row is not None:
                    kind.is_stale(row)
            except CannotRecompile as refusal:
                found.append(f"{kind.named(row)}: {refusal}")
    return found, True


def _row(kind: _Kind, pk: int) -> Any:
    text = kind.rows().filter(pk=pk).values_list("text", flat=True).first()
    return kind.rows().filter(pk=pk).first() if text and _may_hold_much(text) else None


def _may_hold_much(text: str) -> bool:
    return sum(1 for _ in _WORD.finditer(text)) >= FEWEST_WORDS


def _lacks_uses(policy: Policy) -> bool:
    wanted = set_names.keys_in(policy.text)
    uses = EndpointSetUse.objects.filter(policy=policy).values_list("endpoint_set__name_key", flat=True)
    return bool(wanted) and not wanted <= set(uses)
