"""Judges calls by the policy version that their job was served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from policystore.audit_log import event_types
from policystore.audit_log.models import HistoryEvent
from policystore.policies import exceptions
from policystore.policies.models import Policy
from policystore.policy_language.document import read_reply
from policystore.policy_language.endpoint_matcher import AllowList, Verdict
from policystore.runners.models import JobRun
from policystore.traffic.event_parser import ParsedEvent
from policystore.traffic.models import Status


@dataclass(frozen=True, slots=True)
class Listed:
    """The endpoints that a version lists, and whether it leaves telemetry on."""

    endpoints: tuple[str, ...]
    telemetry: bool

    @classmethod
    def parse(cls, reply: str) -> Listed | None:
        """Parse a stored reply; None if it is not a compiled one, as after an edit of the database."""
        values = read_reply(reply)
        return _listed(values) if values.get("policy_name") else None

    def judges_nothing(self, mode: str) -> bool:
        """True for an audit policy that lists nothing: every call would be off its list."""
        return not self.endpoints and mode == Policy.Mode.AUDIT

    def with_exceptions(self, endpoints: Iterable[str]) -> AllowList:
        """The list with what exceptions allow in addition."""
        return AllowList.from_entries([*self.endpoints, *endpoints], telemetry=self.telemetry)


def allow_list_of(reply: str) -> AllowList:
    """The list of a reply as runners get it; nothing but the built-in hosts if it is not a compiled reply."""
    return _listed(read_reply(reply)).with_exceptions(())


def _listed(values: dict[str, Any]) -> Listed:
    return Listed(tuple(map(str, values["allowed_endpoints"])), not values.get("disable_telemetry"))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The served policy's mode and list. The list is None if there was no policy, which has no mode either, or an audit
    policy without a list.
    """

    mode: str
    allowed: AllowList | None

    def of(self, event: ParsedEvent) -> Status:
        """What the enforcer did, otherwise judged by the list."""
        lists_nothing = self.allowed is None and self.mode != ""
        if event.outcome == Status.BLOCKED or (event.outcome and not lists_nothing):
            return Status(event.outcome)
        return self.judge(event.kind, event.host, event.port)

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
    if served is None or served.judges_nothing(run.egress_policy):
        return Verdicts(run.egress_policy, None)
    return Verdicts(run.egress_policy, served.with_exceptions(_exception_endpoints(run)))


def _served(run: JobRun) -> Listed | None:
    """The version that the job was served; from the history if the policy has changed or its reply was edited."""
    if run.staged_event_id is not None:
        return _staged(run.staged_event_id)
    policy_id, version = run.policy_id or 0, run.policy_version or 0
    current = Policy.objects.filter(pk=policy_id, version=version).values_list("reply", flat=True)
    for reply in current:
        if (listed := Listed.parse(reply)) is not None:
            return listed
    events = HistoryEvent.objects.filter(
        owner=run.organization.key,
        subject_type=HistoryEvent.SubjectType.POLICY,
        subject_id=policy_id,
        version=version,
    )
    replies = events.exclude(reply_after="").order_by("-pk").values_list("reply_after", flat=True)
    return next((Listed.parse(reply) for reply in replies[:1]), None)


def _exception_endpoints(run: JobRun) -> tuple[str, ...]:
    """The endpoints that the policy's exceptions allowed when the job was served."""
    served_at = run.fetched_at or run.first_seen_at
    return exceptions.allowed_at(run.organization, run.policy_id or 0, at=served_at)


def _staged(event_id: int) -> Listed | None:
    event = HistoryEvent.objects.filter(pk=event_id, kind=event_types.STAGED).first()
    return None if event is None else Listed.parse(event.details["reply"])
