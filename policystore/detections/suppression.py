"""Whether a suppression rule fits a detection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from django.db.models import QuerySet

from policystore.detections.models import Detection, SuppressionRule
from policystore.policy_language.scopes import Scope, ScopeType
from policystore.runners.models import JobRun


def first_fitting(rules: Iterable[SuppressionRule], detection: Detection, run: JobRun) -> SuppressionRule | None:
    """The first rule that suppresses the detection, if any does."""
    return next((rule for rule in rules if fits(rule, detection, run)), None)


def fits(rule: SuppressionRule, detection: Detection, run: JobRun) -> bool:
    """Whether every filled-in field of the rule fits. A lockdown that ended a job is never suppressed."""
    if detection.is_lockdown:
        return False
    return (
        rule.detection_id in ("", detection.detection_id)
        and _fits_destination(rule.destination, detection)
        and rule.process in ("", detection.process)
        and _fits_scope(rule.scope_key, run)
    )


def may_fit(rule: SuppressionRule, rows: QuerySet[Detection]) -> QuerySet[Detection]:
    """Those of the detections that the database alone cannot tell not to fit; `fits` tells the rest."""
    rows = rows.filter(is_lockdown=False)
    if rule.detection_id:
        rows = rows.filter(detection_id=rule.detection_id)
    if rule.process:
        rows = rows.filter(process=rule.process)
    for part in rule.destination.split("*"):
        # Databases differ in how they fold the case of what is not ASCII.
        for piece in re.split(r"[^\x00-\x7f]+", part.partition(":")[0]):
            # With a letter in it, it can only stand in the host.
            if any(character.isalpha() for character in piece):
                rows = rows.filter(host__icontains=piece)
    return rows


def _fits_destination(pattern: str, detection: Detection) -> bool:
    if not pattern:
        return True
    # Only the star is special: a bracket or question mark in a rule means itself.
    literal = pattern.lower().replace("[", "[[]").replace("?", "[?]")
    return fnmatchcase(detection.endpoint.lower(), literal) or fnmatchcase(detection.host.lower(), literal)


def _fits_scope(key: str, run: JobRun) -> bool:
    if not key:
        return True
    scope = Scope.from_key(key)
    if scope.type == ScopeType.CLUSTER:
        return scope.cluster == run.cluster
    if scope.type == ScopeType.ORGANIZATION:
        return True
    if scope.repository != run.repository.lower():
        return False
    return scope.type == ScopeType.REPOSITORY or scope.workflow == run.workflow
