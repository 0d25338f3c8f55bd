"""What the store tells of calls, against a recount that keeps every event sent and goes through all of them each time.

The recount knows the agent's rules and what is documented, and nothing of how the store counts.
"""

import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.utils import timezone

from policystore.accounts.models import SYSTEM
from policystore.detections import actions
from policystore.detections.models import Detection
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.fetch import handler, recorder
from policystore.runners.models import JobRun
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.impact import bitmap_store, preview
from tests import agent_rule, factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

STEPS = 120
START = datetime(2026, 9, 1, 8, tzinfo=UTC)
SINKHOLE = "54.185.253.63"
STABLE_AFTER, UNSTABLE_WITHIN = 4, 2
ALWAYS = ("*.actions.githubusercontent.com:443", "codeload.github.com:443")
HOSTS = (
    "a.example",
    "B.example",
    "x.a.example",
    "y.x.a.example",
    "codeload.github.com",
    "z.actions.githubusercontent.com",
)
ADDRESSES = ("192.0.2.7", "2001:db8::7")
ENTRIES = (
    "a.example",
    "B.Example:443",
    "b.example:80",
    "*.a.example:443",
    "*.a.example:80",
    "x.*.example:443",
    "*:8443",
)
SCOPES = (
    Scope.for_organization("octo-org"),
    Scope.for_repository("octo-org", "hello-world"),
    Scope.for_workflow("octo-org", "other", "ci.yml"),
    Scope.for_cluster("octo-org", "k8s"),
)  # fmt: skip


def lets_through(entries, host, port):
    return agent_rule.verdict([entry.lower() for entry in entries], host, port) != "blocked"


@dataclass
class Event:
    kind: str
    endpoint: tuple
    dropped: bool
    at: datetime
    is_new: bool = False

    @property
    def is_call(self):
        return self.kind == "networkconnection" or self.dropped


@dataclass
class Job:
    repository: str
    workflow: str
    name: str
    cluster: str
    run_id: str
    correlation_id: str
    began: datetime
    served: dict | None = None
    lists: bool = False
    known: set = field(default_factory=set)
    sent: dict = field(default_factory=dict)
    called: int = 0

    @property
    def calls(self):
        return [event for event in self.sent.values() if event.is_call]

    @property
    def reached(self):
        return [event for event in self.calls if not event.dropped]

    @property
    def identity(self):
        return self.repository.lower(), self.workflow, self.name, self.cluster

    @property
    def scope_keys(self):
        place = f"octo-org/{self.repository.lower()}"
        return (
            f"workflow:{place}/{self.workflow}",
            f"repository:{place}",
            "organization:octo-org",
            f"cluster:octo-org/{self.cluster}",
        )

    def is_off_list(self, event):
        return self.lists and not lets_through(self.served["allowed_endpoints"], *event.endpoint)


class World:
    """Random jobs and policies. Of a `late` world's jobs, half tell of calls before it is known what they are."""

    def __init__(self, seed, *, late, monkeypatch):
        self.chance, self.late, self.now = random.Random(seed), late, START
        monkeypatch.setattr(timezone, "now", lambda: self.now)
        monkeypatch.setattr(handler, "datetime", SimpleNamespace(now=lambda zone: self.now))
        self.organization = factories.organization("octo-org")
        self.vm = {"authorization": f"vm-api-key {factories.api_key(self.organization)}"}
        self.jobs, self.detected, self.holders, self.order = [], set(), {}, 0
        self.policies = [factories.policy(self.organization, f"p{n}", text=self.text()) for n in range(3)]

    def step(self):
        acts = {self.begin: 10, self.send: 30, self.work: 8, self.edit: 3, self.attach: 4, self.detach: 2}
        self.now += timedelta(seconds=self.chance.randrange(1, 2000), microseconds=self.chance.randrange(10**6))
        self.chance.choices([*acts], [*acts.values()])[0]()

    def begin(self):
        said = [
            self.chance.choice(among)
            for among in (["hello-world", "OTHER"], ["ci.yml", ""], ["build", "test"], ["", "k8s"])
        ]
        # Now and then a matrix, a re-run or another job of a run that began before; a run is of one repository.
        run_id = str(len(self.jobs))
        if self.jobs and self.chance.random() < 0.4:
            before = self.chance.choice(self.jobs[-4:])
            said[0], run_id = before.repository, before.run_id
        job = Job(*said, run_id, str(uuid.UUID(int=self.chance.getrandbits(128))), self.now)
        self.jobs.append(job)
        if not (self.late and self.chance.random() < 0.5):
            self.know(job)

    def know(self, job, *asks):
        for ask_for in asks or (self.fetch, self.monitor):
            if ask_for not in job.known:
                job.known.add(ask_for)
                ask_for(job)

    def fetch(self, job):
        asked = f"workflow={job.workflow}&run_id={job.run_id}&correlationId={job.correlation_id}&cluster={job.cluster}"
        answer = ask("GET", f"{self.base(job)}/policies/workflow-policy?{asked}", self.vm)
        recorder.flush()
        policy = next((self.holders[key] for key in job.scope_keys if key in self.holders), None)
        job.served = answer.json() if answer.status == 200 else None
        assert (job.served or {}).get("policy_name") == (policy.name if policy else None)
        # An audit that lists nothing has nothing off it.
        job.lists = bool(policy) and bool(policy.egress_policy == "block" or policy.listed_endpoints)

    def monitor(self, job):
        said = {"correlation_id": job.correlation_id, "job": job.name}
        assert ask("POST", f"{self.base(job)}/runs/{job.run_id}/monitor", {}, said).status == 200

    def base(self, job):
        return f"/v1/github/octo-org/{job.repository}/actions"

    def send(self):
        if not self.jobs:
            return
        job = self.chance.choice(self.jobs[-5:])
        if self.chance.random() < 0.3:
            self.know(job, self.chance.choice([self.fetch, self.monitor]))
        again = self.chance.sample(sorted(job.sent), min(len(job.sent), self.chance.randrange(3)))
        values = [self.event(job) for _ in range(self.chance.randrange(1, 6))] + [dict(said) for said in again]
        values += self.chance.sample(values, 1)
        self.chance.shuffle(values)
        assert ask("POST", f"{self.base(job)}/jobs/{job.correlation_id}/events", self.vm, values).status == 200
        self.note(job, {tuple(sorted(value.items())): value for value in values})

    def event(self, job):
        at = job.began + (self.now - job.began) * self.chance.random()
        is_dns = self.chance.random() < 0.2
        host, address = self.chance.choice(HOSTS), f"198.51.100.{self.chance.randrange(256)}"
        if self.chance.random() < 0.2:
            address = SINKHOLE
        value = {"type": "dns", "ipAddress": address, "timestamp": f"{at:%Y-%m-%dT%H:%M:%S.%f}123Z"}
        if is_dns or address == SINKHOLE or self.chance.random() < 0.9:
            value["domainName"] = self.chance.choice([host, host.upper(), f"{host}."])
        else:
            value["ipAddress"] = self.chance.choice(ADDRESSES)
        if is_dns:
            return value
        more = {"port": self.chance.choice(["443", "443(https)", "80", "8443"])}
        more |= {"status": "Dropped"} if self.chance.random() < 0.1 else {}
        return value | {"type": "networkconnection"} | more

    def note(self, job, told):
        fresh = {said: self.read(value) for said, value in told.items() if said not in job.sent}
        same = [other for other in self.jobs if other.identity == job.identity]
        earlier = {event.endpoint for other in same for event in other.reached}
        has_earlier = any(other.calls for other in same if other.run_id != job.run_id)
        for event in fresh.values():
            event.is_new = has_earlier and event.is_call and not event.dropped and event.endpoint not in earlier
        job.sent |= fresh
        if job.calls and not job.called:
            self.order += 1
            job.called = self.order
        has_enough = len({other.run_id for other in same if other.calls}) >= STABLE_AFTER
        for event in fresh.values():
            if event.dropped:
                self.detected.add((job.correlation_id, "Domain-Blocked", event.endpoint))
            if event.is_new and has_enough:
                self.detected.add((job.correlation_id, "New-Outbound-Network-Call", event.endpoint))

    def read(self, value):
        host = value.get("domainName", value["ipAddress"]).rstrip(".").lower()
        endpoint = host, int(value.get("port", "443").partition("(")[0])
        dropped = value.get("status") == "Dropped" or value["ipAddress"] == SINKHOLE
        return Event(value["type"], endpoint, dropped, datetime.fromisoformat(f"{value['timestamp'][:26]}+00:00"))

    def work(self):
        """What the worker does, once more is known of the jobs."""
        actions.settle_early(now=self.now + timedelta(hours=2))
        bitmap_store.catch_up(now=self.now)

    def text(self):
        mode, entries = self.chance.choice(["audit", "block"]), self.chance.sample(ENTRIES, self.chance.randrange(5))
        return f"egress-policy: {mode}\nallowed-endpoints: {' '.join(entries)}\n".replace(": *", ": >\n  *")

    def edit(self):
        policy = self.chance.choice(self.policies)
        name = self.chance.choice([policy.name, f"renamed-{self.chance.randrange(10**6)}"])
        said = {"name": name, "description": "", "text": self.text(), "expected_version": policy.version}
        policies.UpdatePolicy(policy=policy, **said).apply(by=SYSTEM)
        policy.refresh_from_db()

    def attach(self):
        policy, scope = self.chance.choice(self.policies), self.chance.choice(SCOPES)
        replacing = {scope.key: self.holders[scope.key].pk} if scope.key in self.holders else {}
        attachments.ModifyAttachments(policy=policy, add=[scope], replacing=replacing).apply(by=SYSTEM)
        self.holders[scope.key] = policy

    def detach(self):
        for key in self.chance.sample(sorted(self.holders), min(len(self.holders), 1)):
            attachments.ModifyAttachments(policy=self.holders.pop(key), remove=[Scope.from_key(key)]).apply(by=SYSTEM)

    # What must have come of it

    def check_runs(self):
        told = {run.correlation_id: (run.calls, run.blocked_calls, run.off_list_calls) for run in JobRun.objects.all()}
        assert len(told) == JobRun.objects.count()
        for job in self.jobs:
            off_list = sum(job.is_off_list(event) for event in job.reached)
            expected = len(job.calls), len(job.calls) - len(job.reached), off_list
            assert told[job.correlation_id] == expected

    def check_baselines(self):
        self.check_baseline(BaselineScope(), self.jobs)
        self.check_baseline(BaselineScope(cluster="k8s"), [job for job in self.jobs if job.cluster])
        self.check_baseline(BaselineScope(repository="Other"), [job for job in self.jobs if job.repository == "OTHER"])
        for identity in {job.identity for job in self.jobs}:
            same = [job for job in self.jobs if job.identity == identity]
            self.check_baseline(BaselineScope(*identity, is_job=True), same)

    def check_baseline(self, scope, jobs):
        by_endpoint = {}
        for job in jobs:
            for event in job.reached:
                by_endpoint.setdefault(event.endpoint, []).append((event.at, job))
        expected = {
            endpoint: (
                len(seen),
                len({job.run_id for _, job in seen}),
                len({job.identity for _, job in seen}),
                min(at for at, _ in seen),
                max(at for at, _ in seen),
            )
            for endpoint, seen in by_endpoint.items()
        }
        told = {
            (e.host, e.port): (e.calls, e.runs, e.jobs, e.first_seen_at, e.last_seen_at)
            for e in baseline.endpoints(self.organization, scope)
        }
        # What was told too early has its time corrected by less than is known in the end.
        kept = 3 if self.late else 5
        assert {key: row[:kept] for key, row in told.items()} == {key: row[:kept] for key, row in expected.items()}
        if not self.late:
            changed = max((first for *_, first, _ in expected.values()), default=None)
            assert baseline.stability(self.organization, scope).state == self.state(jobs, changed)

    def state(self, jobs, changed):
        # A run began with the first of its jobs to make a call here.
        runs = {}
        for job in sorted((job for job in jobs if job.calls), key=lambda job: job.called):
            runs.setdefault(job.run_id, job)
        since = sum(job.began > changed for job in runs.values()) if changed else 0
        if len(runs) >= STABLE_AFTER and since >= STABLE_AFTER:
            return "stable"
        return "unstable" if len(runs) >= STABLE_AFTER and changed and since < UNSTABLE_WITHIN else "creating"

    def check_detections(self):
        rows = Detection.objects.select_related("job_run")
        told = [(row.job_run.correlation_id, row.detection_id, (row.host, row.port)) for row in rows]
        # While a job is not known, nobody can say what is new for it.
        counted = {"Domain-Blocked"} if self.late else {"Domain-Blocked", "New-Outbound-Network-Call"}
        assert sorted(one for one in told if one[1] in counted) == sorted(d for d in self.detected if d[1] in counted)

    def check_impact(self):
        for scope in SCOPES:
            text = self.text()
            draft = preview.compile_draft(self.organization, text)
            told = preview.replay_draft(draft, policy=None, days=60, over=scope)
            holders = {**self.holders, scope.key: draft}
            mine = [job for job in self.jobs if job.calls and self.winner(job, holders) == scope.key]
            entries = text.partition("allowed-endpoints:")[2].replace(">", "").split()
            off = [{e.endpoint for e in job.calls if not lets_through(entries, *e.endpoint)} for job in mine]
            assert (told.replay.runs, told.replay.off_list) == (len(mine), sum(map(bool, off)))
            counted = {f"{host}:{port}": sum((host, port) in some for some in off) for host, port in set().union(*off)}
            assert {row.text: row.runs for row, _ in told.endpoints.rows} == counted

    def winner(self, job, holders):
        return next(key for key in (*job.scope_keys, "") if key in holders or not key)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_store_tells_what_a_recount_of_all_events_tells(seed, late, monkeypatch, settings):
    settings.BASELINE_STABLE_RUNS, settings.BASELINE_UNSTABLE_RUNS = STABLE_AFTER, UNSTABLE_WITHIN
    world = World(seed, late=late, monkeypatch=monkeypatch)
    for _ in range(STEPS):
        world.step()
    for job in world.jobs:
        world.know(job)
    # The row that a batch brought first goes to the run, and that is counted anew; each is looked at once an hour.
    for _ in range(2):
        world.now += timedelta(hours=4)
        world.work()
    world.check_runs()
    world.check_baselines()
    world.check_detections()
    world.check_impact()
