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
from typing import Any

from django.db.models import QuerySet

from policystore.accounts.actors import SYSTEM
from policystore.documents import set_names
from policystore.documents.yaml_guard import MAX_PROBLEMS
from policystore.policies.actions import compiling, endpoint_sets, policies, staged, staging
from policystore.policies.errors import PolicyError
from policystore.policies.models import EndpointSet, EndpointSetUse, Policy, StagedVersion

logger = logging.getLogger(__name__)

REASON = "Read anew: an earlier release left out what stands below 200 warnings."
ROWS_AT_ONCE = 50
SECONDS_A_TURN = 0.5
# The release before may go on saving on another machine for a while after this one has looked through everything.
REST_SECONDS = 24 * 3600.0
# Endpoints draw at most six warnings each (host, case, port, risk, listed before, second port), so that a text with
# fewer words holds no more of them than were read through.
FEWEST_WORDS = MAX_PROBLEMS // 6 + 1
_WORD = re.compile(r"[^\s,]+")


@dataclass(slots=True)
class _Kind:
    """What has a text and something compiled of it: its rows, and what mends one of them where that is wrong."""

    rows: Callable[[], QuerySet[Any]]
    mend: Callable[[Any], None]
    done: int = 0


class Rereading:
    """One look through all sets, policies and staged versions, some of it each turn; begun anew after a rest.

    How far it is stands in memory: the next process begins from the start, and finds nothing to mend.
    """

    def __init__(self) -> None:
        # Policies are compiled with sets.
        self._kinds = (
            _Kind(lambda: EndpointSet.objects.select_related("organization"), _mend_set),
            _Kind(lambda: Policy.objects.select_related("organization"), _mend_policy),
            _Kind(lambda: StagedVersion.objects.select_related("policy__organization"), _mend_staged),
        )
        self._resting_until = 0.0

    def __call__(self) -> None:
        """Look through as much as fits between two turns."""
        began = time.monotonic()
        while self._resting_until <= time.monotonic() < began + SECONDS_A_TURN:
            if not any(_step(kind) for kind in self._kinds):
                self._resting_until = time.monotonic() + REST_SECONDS
                for kind in self._kinds:
                    kind.done = 0


def _step(kind: _Kind) -> bool:
    """Look at the next rows; False where there are none."""
    rows = list(kind.rows().filter(pk__gt=kind.done).order_by("pk")[:ROWS_AT_ONCE])
    for row in rows:
        if _may_hold_much(row.text):
            try:
                kind.mend(row)
            except PolicyError as refusal:
                logger.warning("Cannot read %s anew: %s", row, refusal)
        kind.done = row.pk
    return bool(rows)


def _may_hold_much(text: str) -> bool:
    return sum(1 for _ in _WORD.finditer(text)) >= FEWEST_WORDS


def _mend_set(found: EndpointSet) -> None:
    if endpoint_sets.listed(found) != found.endpoints:
        endpoint_sets.read_anew(endpoint_set=found, by=SYSTEM, reason=REASON)
        _told("endpoint set", found.name, found.organization.login)


def _mend_policy(policy: Policy) -> None:
    stored = Policy.objects.filter(pk=policy.pk)
    if _lacks_uses(policy) or compiling.preview(policy.organization, stored, compiling.NO_CHANGE):
        policies.read_anew(policy=policy, by=SYSTEM, reason=REASON)
        _told("policy", policy.name, policy.organization.login)


def _lacks_uses(policy: Policy) -> bool:
    wanted = {name.lower() for name in set_names.names_in(policy.text)}
    uses = EndpointSetUse.objects.filter(policy=policy).values_list("endpoint_set__name_key", flat=True)
    return bool(wanted) and not wanted <= set(uses)


def _mend_staged(found: StagedVersion) -> None:
    if staging.compile_anew(found):
        staged.read_anew(staged=found, by=SYSTEM, reason=REASON)
        _told("staged version of", found.policy.name, found.policy.organization.login)


def _told(what: str, name: str, organization: str) -> None:
    logger.info("Read the %s %s of %s anew", what, name, organization)
