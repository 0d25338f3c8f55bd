"""Suppression rules: matching, adding and removing them. Each change records an account event in its transaction."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice

from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from policystore.accounts.models import AccountEvent, Actor
from policystore.db import transactions
from policystore.db.transactions import Lock
from policystore.detections.models import Detection, SuppressionRule
from policystore.inventory.models import Organization
from policystore.policy_language.scopes import Scope, ScopeType
from policystore.runners.models import JobRun

PREVIEWED = 1000
STEP = 1000
# Storing detections takes the suppression lock shared, before it reads the rules. Adding a rule takes it exclusively
# for an instant: it then sees everything that was stored without the new rule, and whatever is stored later sees the
# rule. Nothing slow runs and no other lock is taken under the exclusive lock, since agents wait for it.


class RuleRefused(ValueError):
    """The rule would suppress everything, or its scope is not valid."""


def draft(
    *, organization: Organization, detection_id: str, scope_key: str, destination: str, process: str, reason: str
) -> SuppressionRule:
    """Build a rule without saving it. Raises RuleRefused."""
    if not any((detection_id, scope_key, destination.strip("* "), process)):
        raise RuleRefused("This rule would suppress everything. Fill in at least one of the fields.")
    if scope_key:
        try:
            scope = Scope.from_key(scope_key)
        except ValueError as error:
            raise RuleRefused(str(error)) from error
        if scope.owner != organization.key:
            raise RuleRefused(f"{scope.label} does not belong to {organization.login}.")
        scope_key = scope.key
    return SuppressionRule(
        organization=organization,
        detection_id=detection_id,
        scope_key=scope_key,
        destination=destination.strip().lower(),
        process=process.strip(),
        reason=reason.strip(),
    )


def preview(rule: SuppressionRule) -> list[Detection]:
    """The past detections that the rule would have suppressed, newest first, at most PREVIEWED."""
    return list(islice(_matching(rule, statuses=(Detection.Status.NEW, Detection.Status.RESOLVED)), PREVIEWED))


def create(*, rule: SuppressionRule, by: Actor) -> SuppressionRule:
    """Save a rule and suppress the new detections that it matches, including those stored at the same time."""
    newest = _newest(rule.organization)
    with transaction.atomic():
        rule.created_at, rule.created_by = timezone.now(), by.name
        rule.save(force_insert=True)
        _suppress_stored(rule)
        AccountEvent.objects.record(
            rule.organization, "suppression rule added", by=by, subject=_summary(rule), detail=rule.reason
        )
        _wait_for_storing(rule.organization_id)
    with transaction.atomic():
        # Everything that was stored without the rule is visible now.
        if SuppressionRule.objects.select_for_update(no_key=True).filter(pk=rule.pk):
            _suppress_stored(rule, after=newest)
    return rule


def remove(*, rule: SuppressionRule, by: Actor) -> None:
    """Remove a rule, and reopen the detections that it suppressed."""
    with transaction.atomic():
        # Waits until everything that is being suppressed by the rule is visible.
        SuppressionRule.objects.select_for_update().filter(pk=rule.pk).first()
        Detection.objects.filter(rule=rule, status=Detection.Status.SUPPRESSED).update(
            status=Detection.Status.NEW, rule=None, changed_at=timezone.now(), changed_by=by.name
        )
        deleted, _ = SuppressionRule.objects.filter(pk=rule.pk).delete()
        if deleted:
            AccountEvent.objects.record(
                rule.organization, "suppression rule removed", by=by, subject=_summary(rule), detail=rule.reason
            )


def suppress(run: JobRun, detections: Sequence[Detection]) -> None:
    """Set the rule and status of those unsaved detections of a job that a rule matches.

    No rule is added or removed until the caller's transaction ends. The caller holds the rows of the job and of its
    detections.
    """
    transactions.lock_shared(Lock.SUPPRESSION, run.organization_id)
    rules = list(SuppressionRule.objects.filter(organization_id=run.organization_id))
    is_kept = False
    while not is_kept:
        for detection in detections:
            detection.rule = first_matching(rules, detection, run)
        used = {detection.rule.pk for detection in detections if detection.rule is not None}
        gone = used - _keep(used)
        rules = [rule for rule in rules if rule.pk not in gone]
        is_kept = not gone
    for detection in detections:
        if detection.rule is not None:
            detection.status = Detection.Status.SUPPRESSED


def matches(rule: SuppressionRule, detection: Detection, run: JobRun) -> bool:
    """True if every filled-in field of the rule matches. A lockdown that ended a job is never suppressed."""
    if detection.is_lockdown:
        return False
    return (
        rule.detection_id in ("", detection.detection_id)
        and _matches_destination(rule.destination, detection)
        and rule.process in ("", detection.process)
        and _matches_scope(rule.scope_key, run)
    )


def may_match(rule: SuppressionRule, rows: QuerySet[Detection]) -> QuerySet[Detection]:
    """Narrow the detections, as far as the database can, to those that may match; `matches` decides about the rest."""
    rows = rows.filter(is_lockdown=False)
    if rule.detection_id:
        rows = rows.filter(detection_id=rule.detection_id)
    if rule.process:
        rows = rows.filter(process=rule.process)
    for part in rule.destination.split("*"):
        # Databases differ in how they fold the case of characters outside ASCII.
        for piece in re.split(r"[^\x00-\x7f]+", part.partition(":")[0]):
            # A piece with a letter in it can only be part of the host.
            if any(character.isalpha() for character in piece):
                rows = rows.filter(host__icontains=piece)
    return rows


def first_matching(rules: Iterable[SuppressionRule], detection: Detection, run: JobRun) -> SuppressionRule | None:
    """The first rule that suppresses the detection, or None."""
    return next((rule for rule in rules if matches(rule, detection, run)), None)


def _matches_destination(pattern: str, detection: Detection) -> bool:
    if not pattern:
        return True
    # Only the star is special; a bracket or question mark matches itself.
    literal = pattern.lower().replace("[", "[[]").replace("?", "[?]")
    return fnmatchcase(detection.endpoint.lower(), literal) or fnmatchcase(detection.host.lower(), literal)


def _matches_scope(key: str, run: JobRun) -> bool:
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


def _matching(rule: SuppressionRule, *, statuses: tuple[str, ...], after: int = 0) -> Iterator[Detection]:
    candidates = Detection.objects.filter(organization=rule.organization, status__in=statuses, pk__gt=after)
    rows = may_match(rule, candidates)
    for detection in rows.select_related("job_run").order_by("-pk").iterator(chunk_size=STEP):
        if matches(rule, detection, detection.job_run):
            yield detection


def _suppress_stored(rule: SuppressionRule, *, after: int = 0) -> None:
    ids = [detection.pk for detection in _matching(rule, statuses=(Detection.Status.NEW,), after=after)]
    for start in range(0, len(ids), STEP):
        Detection.objects.filter(pk__in=ids[start : start + STEP], status=Detection.Status.NEW).update(
            status=Detection.Status.SUPPRESSED, rule=rule, changed_at=rule.created_at, changed_by=rule.created_by
        )


def _newest(organization: Organization) -> int:
    """The id of the newest detection. Detections that become visible later have higher ids."""
    with transaction.atomic():
        _wait_for_storing(organization.pk)
        return Detection.objects.filter(organization=organization).aggregate(newest=Max("pk"))["newest"] or 0


def _wait_for_storing(organization_id: int) -> None:
    """Wait for transactions that store the organization's detections, and start none until this one ends."""
    transactions.lock_exclusive(Lock.SUPPRESSION, organization_id)


def _keep(ids: Collection[int]) -> set[int]:
    """Lock these rules against removal until the transaction ends; returns the ids of those that still exist."""
    rows = SuppressionRule.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")
    return set(rows.values_list("pk", flat=True)) if ids else set()


def _summary(rule: SuppressionRule) -> str:
    parts = (rule.detection_id, rule.scope_key, rule.destination, rule.process)
    return ", ".join(part for part in parts if part)[:255]
