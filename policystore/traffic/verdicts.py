"""Judges calls by the policy version that their job was served."""

from __future__ import annotations

import json
from dataclasses import dataclass

from policystore.audit_log import event_types
from policystore.audit_log.models import HistoryEvent
from policystore.policies.exceptions import past_exceptions
from policystore.policies.models import Policy
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.runners.models import JobRun
from policystore.traffic.event_parser import ParsedEvent
from policystore.traffic.models import Status


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The served policy's mode and list. The list is None if there was no policy, or an audit policy without a list."""

    mode: str
    allowed: AllowList | None

    def of(self, event: ParsedEvent) -> Status:
        """Blocked if the agent stopped the call, otherwise judged by the list."""
        return Status.BLOCKED if event.dropped else self.judge(event.kind, event.host, event.port)

    def judge(self, kind: str, host: str, port: int) -> Status:
        """The status by the list of a call or DNS look-up that the agent did not stop."""
        if self.allowed is None:
            return Status.ALLOWED
        verdict = self._verdict(self.allowed, kind, host, port)
        if verdict is Verdict.ALLOWED:
            return Status.ALLOWED
        if verdict is Verdict.UNDETERMINED:
            return Status.UNDETERMINED
        # An agent that gives up enforcement blocks nothing, as in audit mode.
        is_enforced = self.mode == Policy.Mode.BLOCK and not self.allowed.gives_up
        return Status.WOULD_BE_BLOCKED if is_enforced else Status.OFF_LIST

    def _verdict(self, allowed: AllowList, kind: str, host: str, port: int) -> Verdict:
        if kind != "dns":
            return allowed.verdict(host, port)
        # A DNS look-up may be for any port.
        return Verdict.ALLOWED if allowed.resolves(host) else Verdict.BLOCKED


UNJUDGED = Verdicts("", None)


def verdicts_for(run: JobRun) -> Verdicts:
    """The verdicts of the version that this job run was served, which may not be the current one."""
    if run.policy_id is None:
        return UNJUDGED
    served = _served(run)
    if served is None or (not served.endpoints and run.egress_policy == Policy.Mode.AUDIT):
        return UNJUDGED
    listed = [*served.endpoints, *_exception_endpoints(run)]
    return Verdicts(run.egress_policy, AllowList.from_entries(listed, telemetry=served.telemetry))


@dataclass(frozen=True, slots=True)
class _Served:
    """The endpoints that a version lists, and whether it leaves telemetry on."""

    endpoints: list[str]
    telemetry: bool

    @classmethod
    def of(cls, reply: str) -> _Served:
        values = json.loads(reply)
        return cls(values["allowed_endpoints"], not values["disable_telemetry"])


def _served(run: JobRun) -> _Served | None:
    if run.staged_event_id is not None:
        return _staged(run.staged_event_id)
    policy_id, version = run.policy_id or 0, run.policy_version or 0
    current = Policy.objects.filter(pk=policy_id, version=version).values_list("reply", flat=True)
    for reply in current:
        return _Served.of(reply)
    events = HistoryEvent.objects.filter(
        owner=run.organization.key,
        subject_type=HistoryEvent.SubjectType.POLICY,
        subject_id=policy_id,
        version=version,
    )
    replies = events.exclude(reply_after="").order_by("-pk").values_list("reply_after", flat=True)
    return next((_Served.of(reply) for reply in replies[:1]), None)


def _exception_endpoints(run: JobRun) -> tuple[str, ...]:
    """The endpoints that the policy's exceptions allowed when the job was served."""
    served_at = run.fetched_at or run.first_seen_at
    return past_exceptions.of_policy(run.organization, run.policy_id or 0, at=served_at)


def _staged(event_id: int) -> _Served | None:
    event = HistoryEvent.objects.filter(pk=event_id, kind=event_types.STAGED).first()
    return None if event is None else _Served.of(event.details["reply"])
