"""Makes and removes suppression rules; each change leaves an account event in its transaction."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from policystore.accounts import account_events
from policystore.accounts.actor import Actor
from policystore.detections.actions import locks
from policystore.detections.models import Detection, SuppressionRule
from policystore.detections.suppression import fits, may_fit
from policystore.inventory.models import Organization
from policystore.policy_language.scopes import Scope

PREVIEWED = 1000
STEP = 1000


class RuleRefused(ValueError):
    """The rule would suppress everything, or names a scope that is none."""


def draft(
    *, organization: Organization, detection_id: str, scope_key: str, destination: str, process: str, reason: str
) -> SuppressionRule:
    """A rule that is not saved yet. Raises RuleRefused."""
    if not any((detection_id, scope_key, destination.strip("* "), process)):
        raise RuleRefused("This rule would suppress everything; fill in at least one of the fields.")
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
    return list(islice(_fitting(rule, statuses=(Detection.Status.NEW, Detection.Status.RESOLVED)), PREVIEWED))


def create(*, rule: SuppressionRule, by: Actor) -> SuppressionRule:
    """Save a rule, and suppress the new detections that it fits, also those that are stored at the same moment."""
    newest = _newest(rule.organization)
    with transaction.atomic():
        rule.created_at, rule.created_by = timezone.now(), by.name
        rule.save(force_insert=True)
        _suppress(rule)
        account_events.record(
            rule.organization, "suppression rule added", by=by, subject=_told(rule), detail=rule.reason
        )
        locks.await_storing(rule.organization_id)
    with transaction.atomic():
        # By now all can be seen that was stored without knowing of the rule.
        if SuppressionRule.objects.select_for_update(no_key=True).filter(pk=rule.pk):
            _suppress(rule, after=newest)
    return rule


def _newest(organization: Organization) -> int:
    """The id of the newest detection; none that comes to be seen later has a lower one."""
    with transaction.atomic():
        locks.await_storing(organization.pk)
        return Detection.objects.filter(organization=organization).aggregate(newest=Max("pk"))["newest"] or 0


def _suppress(rule: SuppressionRule, *, after: int = 0) -> None:
    ids = [detection.pk for detection in _fitting(rule, statuses=(Detection.Status.NEW,), after=after)]
    for start in range(0, len(ids), STEP):
        Detection.objects.filter(pk__in=ids[start : start + STEP], status=Detection.Status.NEW).update(
            status=Detection.Status.SUPPRESSED, rule=rule, changed_at=rule.created_at, changed_by=rule.created_by
        )


def remove(*, rule: SuppressionRule, by: Actor) -> None:
    """Remove a rule; what it suppressed becomes new again."""
    with transaction.atomic():
        # Who is suppressing something by it keeps it until that can be seen here.
        SuppressionRule.objects.select_for_update().filter(pk=rule.pk).first()
        Detection.objects.filter(rule=rule, status=Detection.Status.SUPPRESSED).update(
            status=Detection.Status.NEW, rule=None, changed_at=timezone.now(), changed_by=by.name
        )
        deleted, _ = SuppressionRule.objects.filter(pk=rule.pk).delete()
        if deleted:
            account_events.record(
                rule.organization, "suppression rule removed", by=by, subject=_told(rule), detail=rule.reason
            )


def _fitting(rule: SuppressionRule, *, statuses: tuple[str, ...], after: int = 0) -> Iterator[Detection]:
    found = Detection.objects.filter(organization=rule.organization, status__in=statuses, pk__gt=after)
    rows = may_fit(rule, found)
    for detection in rows.select_related("job_run").order_by("-pk").iterator(chunk_size=STEP):
        if fits(rule, detection, detection.job_run):
            yield detection


def _told(rule: SuppressionRule) -> str:
    parts = (rule.detection_id, rule.scope_key, rule.destination, rule.process)
    return ", ".join(part for part in parts if part)[:255]
