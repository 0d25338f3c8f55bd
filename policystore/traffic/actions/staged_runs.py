"""Judges observed calls by staged versions, as they arrive: little by little in the worker, so that ingest does no work
for it. A run is judged anew, as a whole, whenever it called something more; so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from policystore.db import batches
from policystore.policies.exceptions import past_exceptions
from policystore.policies.exceptions.past_exceptions import PastExceptions
from policystore.policies.models import StagedVersion
from policystore.policy_language.document import read_reply
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.runners.models import JobRun
from policystore.traffic.models import RunEndpoint, StagedProgress, StagedRun

# No transaction of ingest lasts nearly that long.
SETTLED_AFTER = timedelta(seconds=15)
IDS_PER_STEP = 20_000
STEPS_PER_TURN = 10
RUNS_PER_STEP = 500
OFF_LIST_KEPT = 50
DROPPED_PER_STEP = 2_000


@dataclass(frozen=True, slots=True)
class _Judge:
    event_id: int
    since: datetime
    listed: tuple[str, ...] | None
    exceptions: PastExceptions
    telemetry: bool
    # By what the exceptions let through beside the list, which changes seldom.
    _allowed: dict[tuple[str, ...], AllowList] = field(init=False, default_factory=dict)

    @classmethod
    def of(cls, staged: StagedVersion, exceptions: PastExceptions) -> _Judge:
        reply = read_reply(staged.reply)
        entries, telemetry = tuple(reply["allowed_endpoints"]), not reply.get("disable_telemetry")
        # As for live policies: an audit that lists nothing judges nothing.
        lists_nothing = not entries and staged.egress_policy == "audit"
        return cls(staged.event_id, staged.staged_at, None if lists_nothing else entries, exceptions, telemetry)

    def concerns(self, run: JobRun) -> bool:
        """Whether the run got the live version while this one was staged; canaries get it, and tell by themselves."""
        return run.first_seen_at >= self.since and run.staged_event_id is None

    def row(self, run: JobRun, called: list[tuple[str, int]]) -> StagedRun:
        allowed = self._allowed_for(run)
        off = [f"{host}:{port}" for host, port in called if allowed and allowed.verdict(host, port) != Verdict.ALLOWED]
        return StagedRun(
            event_id=self.event_id,
            job_run=run,
            began_at=run.first_seen_at,
            off_list=off[:OFF_LIST_KEPT],
            off_list_count=len(off),
        )

    def _allowed_for(self, run: JobRun) -> AllowList | None:
        """What it would have let through had the run got it: the exceptions are those of that moment."""
        if self.listed is None:
            return None
        more = self.exceptions.at(run.fetched_at or run.first_seen_at)
        if more not in self._allowed:
            self._allowed[more] = AllowList.from_entries([*self.listed, *more], telemetry=self.telemetry)
        return self._allowed[more]


def catch_up(*, settled_after: timedelta = SETTLED_AFTER, now: datetime | None = None) -> int:
    """Judge what has arrived and settled since the last turn, as much as fits; returns how many runs were judged.

    Of two workers at once, one waits for the other.
    """
    now = now or timezone.now()
    StagedProgress.objects.get_or_create(pk=1)
    judged = 0
    for _ in range(STEPS_PER_TURN):
        with transaction.atomic():
            progress = StagedProgress.objects.select_for_update().get(pk=1)
            _mark(progress, settled_after, now)
            if progress.seen_id >= progress.mark_id or now - (progress.marked_at or now) < settled_after:
                break
            judged += _step(progress)
    return judged


def drop_old() -> bool:
    """Delete the results of versions that are no longer staged; returns True if some are left."""
    current = StagedVersion.objects.values("event_id")
    old = StagedRun.objects.exclude(event_id__in=current)

    def delete() -> int:
        ids = list(old.values_list("pk", flat=True)[:DROPPED_PER_STEP])
        StagedRun.objects.filter(pk__in=ids).delete()
        return len(ids)

    return batches.repeat(delete, size=DROPPED_PER_STEP)


def _mark(progress: StagedProgress, settled_after: timedelta, now: datetime) -> None:
    """Where everything marked is judged, mark what is there now, for a later turn."""
    if progress.seen_id < progress.mark_id:
        return
    progress.mark_id = RunEndpoint.objects.aggregate(last=Max("pk"))["last"] or 0
    progress.marked_at = now
    progress.save(update_fields=["mark_id", "marked_at"])


def _step(progress: StagedProgress) -> int:
    judges = _judges()
    until = min(progress.seen_id + IDS_PER_STEP, progress.mark_id) if judges else progress.mark_id
    judged = _judge(judges, progress.seen_id, until) if judges else 0
    progress.seen_id = until
    progress.save(update_fields=["seen_id"])
    return judged


def _judges() -> dict[int, _Judge]:
    versions = list(StagedVersion.objects.all())
    if not versions:
        return {}
    known = past_exceptions.since(min(staged.staged_at for staged in versions), [staged.pk for staged in versions])
    return {staged.pk: _Judge.of(staged, known.get(staged.pk, past_exceptions.NOTHING)) for staged in versions}


def _judge(judges: Mapping[int, _Judge], after: int, until: int) -> int:
    rows = RunEndpoint.objects.filter(pk__gt=after, pk__lte=until, job_run__policy_id__in=list(judges))
    ids = sorted(rows.order_by().values_list("job_run_id", flat=True).distinct())
    for start in range(0, len(ids), RUNS_PER_STEP):
        _judge_runs(judges, ids[start : start + RUNS_PER_STEP])
    return len(ids)


def _judge_runs(judges: Mapping[int, _Judge], ids: list[int]) -> None:
    runs = JobRun.objects.in_bulk(ids)
    called: dict[int, list[tuple[str, int]]] = {}
    endpoints = RunEndpoint.objects.filter(job_run__in=ids).order_by("host", "port")
    for run_id, host, port in endpoints.values_list("job_run_id", "host", "port"):
        called.setdefault(run_id, []).append((host, port))
    rows = []
    for run_id, run in sorted(runs.items()):
        # What a fetch has changed since the look above is nobody's any more.
        judge = judges.get(run.policy_id or 0)
        if judge is not None and judge.concerns(run):
            rows.append(judge.row(run, called[run_id]))
    StagedRun.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["event_id", "job_run"],
        update_fields=["off_list", "off_list_count"],
    )
