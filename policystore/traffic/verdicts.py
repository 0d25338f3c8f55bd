"""Decides what became of a call under the policy version that its job was served."""

from __future__ import annotations

import json
from dataclasses import dataclass

from policystore.documents.document import check
from policystore.documents.endpoints import AllowList
from policystore.policies import event_types, excepted
from policystore.policies.models import HistoryEvent, Policy
from policystore.runners.models import JobRun
from policystore.traffic.models import Status
from policystore.traffic.observations import Observation


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The served policy's mode and list; a list of None means that nothing was served or nothing listed in audit."""

    mode: str
    allowed: AllowList | None

    def of(self, seen: Observation) -> Status:
        """Blocked where the agent stopped it; else by the list."""
        return Status.BLOCKED if seen.dropped else self.judge(seen.kind, seen.host, seen.port)

    def judge(self, kind: str, host: str, port: int) -> Status:
        """By the list, of a call or look-up that the agent did not stop."""
        if self.allowed is None or self._lets_through(self.allowed, kind, host, port):
            return Status.ALLOWED
        return Status.WOULD_BE_BLOCKED if self.mode == Policy.Mode.BLOCK else Status.OFF_LIST

    def _lets_through(self, allowed: AllowList, kind: str, host: str, port: int) -> bool:
        # A name is looked up for whatever port comes next.
        return allowed.names(host) if kind == "dns" else allowed.allows(host, port)


UNJUDGED = Verdicts("", None)


def verdicts_for(run: JobRun, *, telemetry_hosts: tuple[str, ...] = ()) -> Verdicts:
    """How calls of this job run are judged: by the version that it was served, not by today's."""
    if run.policy_id is None:
        return UNJUDGED
    entries = _served_endpoints(run)
    if entries is None or (not entries and run.egress_policy == Policy.Mode.AUDIT):
        return UNJUDGED
    listed = [*entries, *_excepted_endpoints(run)]
    return Verdicts(run.egress_policy, AllowList.from_entries(listed, telemetry_hosts=telemetry_hosts))


def _served_endpoints(run: JobRun) -> list[str] | None:
    if run.staged_event_id is not None:
        return _staged_endpoints(run.staged_event_id)
    policy_id, version = run.policy_id or 0, run.policy_version or 0
    current = Policy.objects.filter(pk=policy_id, version=version).values_list("reply", flat=True)
    for reply in current:
        listed: list[str] = json.loads(reply)["allowed_endpoints"]
        return listed
    events = HistoryEvent.objects.filter(
        owner=run.organization.key,
        subject_type=HistoryEvent.SubjectType.POLICY,
        subject_id=policy_id,
        version=version,
    )
    served = events.exclude(reply_after="", text_after="").order_by("-pk").values_list("reply_after", "text_after")
    for reply, text in served[:1]:
        return _listed(reply, text)
    return None


def _excepted_endpoints(run: JobRun) -> tuple[str, ...]:
    """What the policy's exceptions let through when the job was served."""
    served_at = run.fetched_at or run.first_seen_at
    return excepted.of_policy(run.organization, run.policy_id or 0, at=served_at)


def _staged_endpoints(event_id: int) -> list[str] | None:
    event = HistoryEvent.objects.filter(pk=event_id, kind=event_types.STAGED).first()
    return None if event is None else _listed(event.details["reply"], "")


def _listed(reply: str, text: str) -> list[str] | None:
    if reply:
        listed: list[str] = json.loads(reply)["allowed_endpoints"]
        return listed
    # Events of before replies were kept in the history.
    document = check(text).document
    return list(document.allowed_endpoints) if document else None
