"""Parses and stores what agents observe and report, creates detections from it, and changes their status."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Any

from django.db import transaction
from django.utils import timezone

from policystore.accounts.models import AccountEvent, Actor
from policystore.detections import queries, rules
from policystore.detections.models import Detection
from policystore.integrations import event_catalog as event_types
from policystore.integrations import outbox
from policystore.policy_language import values
from policystore.runners import job_runs
from policystore.runners.models import JobRun
from policystore.traffic import baseline, late_attribution, store
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.event_parser import MAX_HOST, Malformed, ParsedEvent, correct_times, escape_star, port_in
from policystore.traffic.models import NetworkEvent, Status
from policystore.traffic.store import EventRow, Stored
from policystore.web.json_api import storable

RELEASED_PER_TURN = 200
BLOCKED = "Domain-Blocked"
NEW_CALL = "New-Outbound-Network-Call"
# Other detections are sent to integrations as `event_types.DETECTION`.
_EVENT_TYPES = {BLOCKED: event_types.BLOCKED_CALL, NEW_CALL: event_types.NEW_ENDPOINT}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Report:
    """A reported detection, in the fields of Detection. `client_at` is None if no valid time was sent."""

    detection_id: str
    detail: str
    host: str
    port: int | None
    process: str
    is_lockdown: bool
    job_terminated: bool
    client_at: datetime | None
    digest: str


def observe(*, run: JobRun, events: Sequence[ParsedEvent], received_at: datetime | None = None) -> Stored:
    """Store network events and, in the same transaction, the detections that they give rise to.

    Events of an unverified job give rise to detections once it is verified. Raises JobRun.DoesNotExist if the job's
    events have moved to another row.
    """
    batch = store.prepare(run=run, events=events, received_at=received_at)
    with transaction.atomic():
        stored = store.store(batch)
        if not stored.counts:
            return stored
        if not run.is_verified:
            # The run was verified while the batch was prepared.
            run.refresh_from_db(fields=["verified_by"])
        blocked = _blocked_calls(run, (event for event in stored.events if event.status == Status.BLOCKED))
        _store(run, [*blocked, *_new_calls(run, (event for event in stored.events if event.is_new))])
    return stored


def parse_report(value: object) -> Report:
    """Parse a report in the shape that the product forwards: `id`, `detection`, `timestamp`, … Raises Malformed."""
    if not isinstance(value, Mapping):
        raise Malformed("The detection is not an object.")
    detection_id = _text(value, "id", 100)
    if not _ID.fullmatch(detection_id):
        raise Malformed("id is missing or is not a valid detection id, such as Reverse-Shell.")
    lockdown = _flag(value, "is_lockdown")
    host, port = _endpoint(value)
    return Report(
        detection_id=detection_id,
        detail=_text(value, "detection", 1000),
        host=host,
        port=port,
        process=_text(value, "process", 255),
        is_lockdown=lockdown,
        job_terminated=lockdown and _flag(value, "job_terminated", default=True),
        client_at=_time(value.get("timestamp")),
        digest=_digest(value),
    )


def report(*, run: JobRun, reports: Sequence[Report], received_at: datetime | None = None) -> int:
    """Store the detections that an agent reports; returns how many were not stored before.

    Raises JobRun.DoesNotExist if the job's row was replaced by another.
    """
    now = received_at or timezone.now()
    distinct = list({each.digest: each for each in reports}.values())
    times = correct_times([each.client_at for each in distinct], received_at=now, job_began_at=store.began_at(run, now))
    shared = {"organization_id": run.organization_id, "job_run": run, **_policy_of(run)}
    detections = []
    for each, at in zip(distinct, times, strict=True):
        fields = asdict(each)
        del fields["client_at"]
        detections.append(Detection(at=at, **fields, **shared))
    with transaction.atomic():
        # Holding the job's row makes a detection that arrives twice at the same time be stored once.
        current = JobRun.objects.select_for_update().get(pk=run.pk)
        run.verified_by = current.verified_by
        return _store(run, detections)


def settle_early(*, now: datetime | None = None) -> int:
    """Recount calls that arrived before their job was fully known, and complete the detections of those runs.

    Returns how many runs were recounted.
    """
    return sum(_settle(early_id, now) for early_id in late_attribution.due(now=now))


def release_verified() -> int:
    """Release the held-back reports of job runs that have been verified since; returns the number of job runs."""
    rows = Detection.objects.filter(status=Detection.Status.UNVERIFIED).exclude(job_run__verified_by="")
    runs = list(rows.order_by().values_list("job_run_id", flat=True).distinct()[:RELEASED_PER_TURN])
    for run_id in runs:
        with transaction.atomic():
            run = JobRun.objects.select_for_update().filter(pk=run_id).first()
            if run is not None:
                _release(run)
    return len(runs)


def change_status(*, detections: Sequence[Detection], status: str, by: Actor) -> int:
    """Resolve or reopen detections of one organization; returns how many changed.

    Reports of unverified jobs do not change.
    """
    new_status = Detection.Status(status)
    with transaction.atomic():
        rows = Detection.objects.select_for_update(of=("self",)).select_related("organization", "job_run")
        rows = rows.filter(pk__in=[detection.pk for detection in detections])
        changed = list(rows.exclude(status__in=(new_status, Detection.Status.UNVERIFIED)).order_by("pk"))
        Detection.objects.filter(pk__in=[detection.pk for detection in changed]).update(
            status=new_status, rule=None, changed_at=timezone.now(), changed_by=by.name
        )
        for detection in changed:
            AccountEvent.objects.record(
                detection.organization,
                "detection resolved" if new_status == Detection.Status.RESOLVED else "detection reopened",
                by=by,
                subject=" ".join(part for part in (detection.detection_id, detection.endpoint) if part)[:255],
                detail=f"{detection.job_run.workflow_label}, detection {detection.pk}"[:450],
            )
    return len(changed)


def _settle(early_id: int, now: datetime | None) -> bool:
    with transaction.atomic():
        settled = late_attribution.settle(early_id, now=now)
        if settled is None:
            return False
        run = settled.run
        if settled.emptied is not None:
            known = Detection.objects.filter(job_run=run).values("digest")
            Detection.objects.filter(job_run=settled.emptied).exclude(digest__in=known).update(job_run=run)
            job_runs.drop_emptied(run=settled.emptied)
        run.refresh_from_db(fields=["verified_by"])
        Detection.objects.filter(job_run=run, policy_id=None).update(**_policy_of(run))
        events = NetworkEvent.objects.filter(job_run=run).order_by("occurred_at")
        blocked = _blocked_calls(run, events.filter(status=Status.BLOCKED)) if settled.is_first_count else []
        _store(run, [*_new_calls(run, events.filter(is_new=True)), *blocked])
    return True


def _blocked_calls(run: JobRun, events: Iterable[EventRow | NetworkEvent]) -> list[Detection]:
    """A detection for each endpoint of these blocked calls, from the last call to it."""
    latest = {(event.host, event.port): event for event in events}
    return [_detection(run, event, BLOCKED) for event in latest.values()]


def _new_calls(run: JobRun, events: Iterable[EventRow | NetworkEvent]) -> list[Detection]:
    """A detection for each endpoint of these first calls, if the job's baseline is settled."""
    latest = {(event.host, event.port): event for event in events}
    if not latest or not _is_settled(run):
        return []
    return [_detection(run, event, NEW_CALL) for event in latest.values()]


def _detection(run: JobRun, event: EventRow | NetworkEvent, detection_id: str) -> Detection:
    # One detection per endpoint of a job, however often the job calls it.
    identity = f"{detection_id} {event.host} {event.port}"
    return Detection(
        organization_id=run.organization_id,
        job_run=run,
        digest=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
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
    """False while a job's baseline is being created, when every other call would be new."""
    return baseline.has_enough_runs(run.organization, BaselineScope.of_job(run))


def _store(run: JobRun, detections: Sequence[Detection]) -> int:
    """Store the detections that are not stored yet; returns how many. The caller holds the job's row."""
    if not detections:
        return 0
    digests = [detection.digest for detection in detections]
    known = set(Detection.objects.filter(job_run=run, digest__in=digests).values_list("digest", flat=True))
    fresh = [detection for detection in detections if detection.digest not in known]
    if not fresh:
        return 0
    if not run.is_verified:
        for detection in fresh:
            detection.status = Detection.Status.UNVERIFIED
        return len(Detection.objects.bulk_create(fresh))
    rules.suppress(run, fresh)
    Detection.objects.bulk_create(fresh)
    _send(run, fresh)
    return len(fresh)


def _release(run: JobRun) -> None:
    """Give the reports of a run that has been verified their status, and send them to the integrations."""
    waiting = list(Detection.objects.filter(job_run=run, status=Detection.Status.UNVERIFIED).order_by("pk"))
    for detection in waiting:
        detection.status = Detection.Status.NEW
    rules.suppress(run, waiting)
    Detection.objects.bulk_update(waiting, ["status", "rule"])
    _send(run, waiting)


def _send(run: JobRun, detections: Sequence[Detection]) -> None:
    """Queue the new detections for the organization's integrations."""
    events = [_event(run, detection) for detection in detections if detection.status == Detection.Status.NEW]
    outbox.emit_all(organization=run.organization, events=events)


def _event(run: JobRun, detection: Detection) -> outbox.Event:
    default = _EVENT_TYPES.get(detection.detection_id, event_types.DETECTION)
    detection.organization = run.organization
    event_type = event_types.LOCKDOWN if detection.is_lockdown else default
    return outbox.Event(event_type, queries.payload(detection), detection.at)


def _text(value: Mapping[str, Any], name: str, length: int) -> str:
    text = value.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise Malformed(f"{name} is not a string.")
    return storable(text)[:length]


def _flag(value: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    flag = value.get(name, default)
    if not isinstance(flag, bool):
        raise Malformed(f"{name} is neither true nor false.")
    return flag


def _endpoint(value: Mapping[str, Any]) -> tuple[str, int | None]:
    """The host and the port, which is None if no valid port was sent."""
    text = _text(value, "endpoint", MAX_HOST + len(":65535"))
    host, colon, port = text.rpartition(":")
    if not colon or _is_ipv6(text):
        return escape_star(text), None
    return escape_star(host or text), port_in(port)


def _is_ipv6(text: str) -> bool:
    """True if the whole text is an IPv6 address, with or without brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address, _, zone = bare.partition("%")
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return ":" not in zone


def _time(value: object) -> datetime | None:
    """Parse seconds since 1970, as a string or number, or RFC 3339."""
    try:
        if isinstance(value, int | float) or (isinstance(value, str) and value.isdecimal()):
            return datetime.fromtimestamp(float(value), UTC)
        if isinstance(value, str) and value:
            return values.in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
