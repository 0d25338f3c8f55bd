"""Makes detections of what agents observe and report, and changes their status."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from policystore.accounts import account_events
from policystore.accounts.actor import Actor
from policystore.detections import public_shape
from policystore.detections.actions import locks
from policystore.detections.models import Detection, SuppressionRule
from policystore.detections.reports import Report
from policystore.detections.suppression import first_fitting
from policystore.integrations import actions as outbox
from policystore.integrations import event_catalog as outbox_events
from policystore.runners.actions import job_runs
from policystore.runners.models import JobRun
from policystore.traffic import stability
from policystore.traffic.actions import deliveries, events, late_attribution
from policystore.traffic.actions.events import Taken
from policystore.traffic.actions.stored_events import Row
from policystore.traffic.baselines import BaselineScope
from policystore.traffic.clock import corrected
from policystore.traffic.event_parser import Observation
from policystore.traffic.models import NetworkEvent, Status

RELEASED_AT_A_TURN = 200
_TOLD_AS = {
    "Domain-Blocked": outbox_events.BLOCKED_CALL,
    "New-Outbound-Network-Call": outbox_events.NEW_ENDPOINT,
}


def observe(*, run: JobRun, observations: Sequence[Observation], received_at: datetime | None = None) -> Taken:
    """Store network events, and in the same transaction the detections that they give rise to.

    Events of an unverified job give rise to detections once it is verified.
    """
    delivery = deliveries.read(run=run, observations=observations, received_at=received_at)
    with transaction.atomic():
        taken = events.keep(delivery)
        if not taken.counts:
            return taken
        if not run.is_verified:
            # The proof came while the events were read.
            run.refresh_from_db(fields=["verified_by"])
        blocked = {(e.host, e.port): e for e in taken.events if e.status == Status.BLOCKED}
        found = [_of_event(run, event, "Domain-Blocked") for event in blocked.values()]
        fresh = {(e.host, e.port): e for e in taken.events if e.is_new}
        if fresh and _is_settled(run):
            found += [_of_event(run, event, "New-Outbound-Network-Call") for event in fresh.values()]
        _store(run, found)
    return taken


def report(*, run: JobRun, reports: Sequence[Report], received_at: datetime | None = None) -> int:
    """Store what is new of the detections that an agent reports; returns how many that were."""
    now = received_at or timezone.now()
    distinct = list({told.digest: told for told in reports}.values())
    times = corrected(
        [told.client_at for told in distinct], received_at=now, job_began_at=deliveries.began_at(run, now)
    )
    found = [
        Detection(
            organization_id=run.organization_id,
            job_run=run,
            digest=told.digest,
            detection_id=told.detection_id,
            detail=told.detail,
            host=told.host,
            port=told.port,
            process=told.process,
            is_lockdown=told.is_lockdown,
            job_terminated=told.job_terminated,
            at=at,
            **_policy_of(run),
        )
        for told, at in zip(distinct, times, strict=True)
    ]
    with transaction.atomic():
        # The job's row is held, so that a detection that comes twice at once is stored once.
        current = JobRun.objects.select_for_update().get(pk=run.pk)
        run.verified_by = current.verified_by
        return _store(run, found)


def settle_early(*, now: datetime | None = None) -> int:
    """Count anew the calls that came before all was known of their job, and make and complete the detections of those
    runs; returns how many runs that were."""
    return sum(_settle(early, now) for early in late_attribution.due(now=now))


def _settle(early: int, now: datetime | None) -> bool:
    with transaction.atomic():
        settled = late_attribution.settle(early, now=now)
        if settled is None:
            return False
        run = settled.run
        if settled.emptied is not None:
            known = Detection.objects.filter(job_run=run).values("digest")
            Detection.objects.filter(job_run=settled.emptied).exclude(digest__in=known).update(job_run=run)
            job_runs.drop_emptied(run=settled.emptied)
        run.refresh_from_db(fields=["verified_by"])
        Detection.objects.filter(job_run=run, policy_id=None).update(**_policy_of(run))
        fresh = {(e.host, e.port): e for e in NetworkEvent.objects.filter(job_run=run, is_new=True)}
        if fresh and _is_settled(run):
            _store(run, [_of_event(run, event, "New-Outbound-Network-Call") for event in fresh.values()])
        if settled.is_first_count:
            _detect_what_waited(run)
    return True


def release_verified() -> int:
    """Make the reports of job runs that have been verified since count; returns how many job runs that were."""
    rows = Detection.objects.filter(status=Detection.Status.UNVERIFIED).exclude(job_run__verified_by="")
    runs = list(rows.order_by().values_list("job_run_id", flat=True).distinct()[:RELEASED_AT_A_TURN])
    for run_id in runs:
        with transaction.atomic():
            run = JobRun.objects.select_for_update().filter(pk=run_id).first()
            if run is not None:
                _release(run)
    return len(runs)


def _detect_what_waited(run: JobRun) -> None:
    """Make detections of the blocked calls of a run that has just been verified."""
    rows = NetworkEvent.objects.filter(job_run=run, status=Status.BLOCKED).order_by("occurred_at")
    blocked = {(event.host, event.port): event for event in rows}
    _store(run, [_of_event(run, event, "Domain-Blocked") for event in blocked.values()])


def _release(run: JobRun) -> None:
    """Give the reports of a run that has been verified their status, and send them to the integrations."""
    waiting = list(Detection.objects.filter(job_run=run, status=Detection.Status.UNVERIFIED).order_by("pk"))
    for detection in waiting:
        detection.status = Detection.Status.NEW
    _suppress(run, waiting)
    Detection.objects.bulk_update(waiting, ["status", "rule"])
    _deliver(run, waiting)


def change_status(*, detections: Sequence[Detection], status: str, by: Actor) -> int:
    """Resolve detections of one organization, or make them new again; returns how many that changed.

    Reports of unverified jobs stay as they are.
    """
    wanted = Detection.Status(status)
    with transaction.atomic():
        rows = Detection.objects.select_for_update(of=("self",)).select_related("organization", "job_run")
        others = rows.filter(pk__in=[one.pk for one in detections])
        changed = list(others.exclude(status__in=(wanted, Detection.Status.UNVERIFIED)).order_by("pk"))
        Detection.objects.filter(pk__in=[one.pk for one in changed]).update(
            status=wanted, rule=None, changed_at=timezone.now(), changed_by=by.name
        )
        for one in changed:
            account_events.record(
                one.organization,
                "detection resolved" if wanted == Detection.Status.RESOLVED else "detection made new again",
                by=by,
                subject=" ".join(part for part in (one.detection_id, one.endpoint) if part)[:255],
                detail=f"{one.job_run.workflow_label}, detection {one.pk}"[:450],
            )
    return len(changed)


def _store(run: JobRun, found: Sequence[Detection]) -> int:
    """Store what is new among these. The caller holds the job's row."""
    if not found:
        return 0
    digests = [detection.digest for detection in found]
    known = set(Detection.objects.filter(job_run=run, digest__in=digests).values_list("digest", flat=True))
    fresh = [detection for detection in found if detection.digest not in known]
    if not fresh:
        return 0
    if not run.is_verified:
        for detection in fresh:
            detection.status = Detection.Status.UNVERIFIED
        return len(Detection.objects.bulk_create(fresh))
    _suppress(run, fresh)
    Detection.objects.bulk_create(fresh)
    _deliver(run, fresh)
    return len(fresh)


def _deliver(run: JobRun, detections: Sequence[Detection]) -> None:
    happenings = [_happening(run, detection) for detection in detections if detection.status == Detection.Status.NEW]
    outbox.tell_each(organization=run.organization, happenings=happenings)


def _suppress(run: JobRun, fresh: Sequence[Detection]) -> None:
    locks.keep_rules(run.organization_id)
    rules = list(SuppressionRule.objects.filter(organization_id=run.organization_id))
    is_kept = False
    while not is_kept:
        for detection in fresh:
            detection.rule = first_fitting(rules, detection, run)
        used = {detection.rule.pk for detection in fresh if detection.rule is not None}
        gone = used - _kept(used)
        rules = [rule for rule in rules if rule.pk not in gone]
        is_kept = not gone
    for detection in fresh:
        if detection.rule is not None:
            detection.status = Detection.Status.SUPPRESSED


def _kept(used: Collection[int]) -> set[int]:
    """Those of the rules that are still there, and are not removed before the transaction ends."""
    rows = SuppressionRule.objects.select_for_update(no_key=True).filter(pk__in=used).order_by("pk")
    return set(rows.values_list("pk", flat=True)) if used else set()


def _happening(run: JobRun, detection: Detection) -> outbox.Happening:
    kind = outbox_events.LOCKDOWN if detection.is_lockdown else _TOLD_AS.get(detection.detection_id)
    detection.organization = run.organization
    return outbox.Happening(kind or outbox_events.DETECTION, public_shape.told(detection), detection.at)


def _of_event(run: JobRun, event: Row | NetworkEvent, detection_id: str) -> Detection:
    said = f"{detection_id} {event.host} {event.port}"
    return Detection(
        organization_id=run.organization_id,
        job_run=run,
        # Once for each endpoint of a job, however often it calls there.
        digest=hashlib.blake2b(said.encode(), digest_size=16).hexdigest(),
        detection_id=detection_id,
        detail=event.reason,
        host=event.host,
        port=event.port,
        process=event.process,
        at=event.occurred_at,
        **_policy_of(run),
    )


def _policy_of(run: JobRun) -> dict[str, object]:
    return {"policy_id": run.policy_id, "policy_name": run.policy_name, "policy_version": run.policy_version}


def _is_settled(run: JobRun) -> bool:
    """While a job's baseline is still being made, every other call would be a new one."""
    scope = BaselineScope(
        repository=run.repository, workflow=run.workflow, job=run.job, cluster=run.cluster, is_job=True
    )
    return stability.had_enough_runs(run.organization, scope)
