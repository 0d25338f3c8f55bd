"""A day of an organization's jobs as their runners and agents tell it over HTTP; the same every time.

It goes through the public protocol alone: policies by the management API, then for each job a fetch, `monitor`, single
posts or batches of network events, and detections. A `Ledger` keeps by simple rules what the store must have counted
afterwards. Against a store that is running:

    python -m tests.traffic.simulated_day ADDRESS --owner octo-org --runner-key KEY --management-key KEY --runs 2000
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import random
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

import httpx

FULL_DAY = 2000
SINKHOLE = "54.185.253.63"
FIRST_RUN_ID = 9_000_000_000
LOCKDOWN = {"enabled": True, "detections": ["Privileged-Container", "Reverse-Shell"]}

# What is sent, and what came back: (method, target, headers, body) → (status, body).
Send = Callable[[str, str, dict[str, str], bytes], tuple[int, bytes]]
Endpoint = tuple[str, int]

COMMON = ("github.com", "api.github.com", "codeload.github.com")
KITS: dict[str, tuple[str, ...]] = {
    "node": ("registry.octo1.org", "nodejs.org", "objects.githubusercontent.com"),
    "python": ("octo.org", "files.octopackages.org"),
    "go": ("proxy.golang.org", "sum.golang.org", "storage.googleapis.com"),
    "images": ("ghcr.io", "pkg-containers.githubusercontent.com", "auth.docker.io", "registry-1.docker.io"),
    "pages": tuple(f"edge-{number}.cdn.example.com" for number in range(1, 7)),
    "debian": ("deb.octo-1.org:80", "security.octo-1.org:80"),
}
STRANGERS = ("collect.telemetry.example", "paste.example", "xn--bcher-kva.example")
PROCESSES = (("git", "bash"), ("node",), ("curl", "bash"), ("python3.12", "bash"), ("dockerd", "systemd"))


@dataclass(frozen=True)
class Workload:
    """A job of a workflow: what it always calls, and how often it runs compared with others."""

    repository: str
    workflow: str
    job: str
    cluster: str
    calls: tuple[Endpoint, ...]
    weight: int


@dataclass(frozen=True)
class Served:
    """What a job was told: `mode` is empty where no policy applies."""

    mode: str = ""
    listed: frozenset[str] = frozenset()

    def stops(self, host: str, port: int) -> bool:
        """Whether the agent drops the call."""
        return self.mode == "block" and not self._lists(host, port)

    def frowns(self, host: str, port: int) -> bool:
        """Whether the call goes through in audit although it is not on the list."""
        return self.mode == "audit" and bool(self.listed) and not self._lists(host, port)

    def _lists(self, host: str, port: int) -> bool:
        # The day's policies have no wildcards, and the agent always lets GitHub's own downloads through.
        return f"{host}:{port}" in self.listed or (host == "codeload.github.com" and port == 443)


@dataclass
class Ledger:
    """What the store must have counted: calls by endpoint (those that were stopped too), and sums."""

    runs: int = 0
    job_runs: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    blocked: Counter[str] = field(default_factory=Counter)
    off_list: int = 0
    malformed: int = 0
    repeated: int = 0
    lockdowns: int = 0
    reports: int = 0
    without_policy: int = 0
    jobs: set[Workload] = field(default_factory=set)

    @property
    def reached(self) -> dict[str, int]:
        """The calls to each endpoint that went through: the organization's baseline."""
        return dict(self.calls - self.blocked)


class Refused(AssertionError):
    """The store answered something other than its contract says."""


def workloads(repositories: int = 40) -> list[Workload]:
    """The organization's jobs: a few in each repository, some with long names, every fifth on an ARC cluster."""
    chance = random.Random(1)
    return [made for number in range(repositories) for made in _repository(number, chance)]


def _repository(number: int, chance: random.Random) -> Iterator[Workload]:
    long = "-with-a-name-that-somebody-found-descriptive" if number % 9 == 4 else ""
    name = f"service-{number:02}{long}"
    cluster = ("build-k8s", "prod-k8s")[number % 2] if number % 5 == 3 else ""
    for workflow, job in (("ci.yml", "build"), ("ci.yml", "test (ubuntu-latest, 3.12)"), ("release.yml", "publish")):
        kits = chance.sample(sorted(KITS), chance.choice((1, 2, 2, 3)))
        hosts = [*COMMON, *(host for kit in kits for host in KITS[kit])]
        weight = chance.choice((1, 3, 8)) if workflow == "ci.yml" else 1
        yield Workload(name, workflow, job, cluster, tuple(_endpoint(host) for host in hosts), weight)


def _endpoint(written: str) -> Endpoint:
    host, _, port = written.partition(":")
    return host, int(port or 443)


class Day:
    """The runs of a day, in order. `now` gives the runners' time; whoever freezes the store's time freezes it too."""

    def __init__(
        self,
        send: Send,
        *,
        owner: str,
        runner_key: str,
        management_key: str,
        runs: int = FULL_DAY,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.send, self.owner, self.runs, self.now = send, owner, runs, now
        self.runner = {"Authorization": f"vm-api-key {runner_key}"}
        self.manager = {"Authorization": f"Bearer {management_key}"}
        self.ledger = Ledger()
        self.workloads = workloads(max(6, min(40, runs // 4)))
        self._lock = threading.Lock()

    def play(self, *, at_once: int = 1, began: Callable[[int], object] = lambda number: None) -> Ledger:
        """Make the policies, then run all jobs, `at_once` at a time; `began` hears of each."""
        self.make_policies()
        if at_once == 1:
            for number in range(self.runs):
                began(number)
                self.run(number)
            return self.ledger
        with ThreadPoolExecutor(at_once) as pool:
            for number, _ in enumerate(pool.map(self.run, range(self.runs))):
                began(number)
        return self.ledger

    def make_policies(self) -> None:
        """An audit policy for two repositories, block for others, lockdown on a cluster; the rest have none."""
        names = sorted({made.repository for made in self.workloads})
        every = sorted({f"{host}:{port}" for made in self.workloads for host, port in made.calls})
        lists = {
            "audited": ("audit", [entry for entry in every if "cdn.example" not in entry], names[:2], ()),
            "blocking": ("block", every, names[2 : max(3, len(names) // 2)], ()),
            "arc-lockdown": ("block", every, (), ("build-k8s", "prod-k8s")),
        }
        for name, (mode, endpoints, repositories, clusters) in lists.items():
            body = {"owner": self.owner, "policyName": name, "allowed_endpoints": endpoints, "egress_policy": mode}
            body |= {"lockdown": LOCKDOWN} if clusters else {}
            self._manage(f"policies/{name}", body)
            scopes = [{"name": repository, "apply_to_repo": True} for repository in repositories]
            organization = {"name": self.owner, "apply_to_org": False, "repos": scopes}
            self._manage(f"policies/{name}/attach", {"org": organization, "clusters": list(clusters)})

    def run(self, number: int) -> None:
        """One workflow run: all jobs of its workflow."""
        chance = random.Random(number)
        # An attack on a cluster now and then, so that each day has some.
        attacked = number % 20 == 7
        among = [made for made in self.workloads if made.cluster or not attacked]
        chosen = chance.choices(among, [made.weight for made in among])[0]
        self._add(runs=1)
        for job in self.workloads:
            if (job.repository, job.workflow) == (chosen.repository, chosen.workflow):
                self._run_job(job, number, chance, attacked=attacked and job == chosen)

    def _run_job(self, job: Workload, number: int, chance: random.Random, *, attacked: bool) -> None:
        """One job from its fetch to its last event."""
        correlation_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        run_id = FIRST_RUN_ID + number
        served = self._fetch(job, run_id, correlation_id)
        telemetry = self._monitor(job, run_id, correlation_id)
        base = f"{self._repository(job)}/actions/jobs/{correlation_id}"
        calls = list(self._calls(job, served, number, chance))
        with self._lock:
            self._note(job, served, calls)
        if number % 7 == 3:
            self._one_by_one(base, telemetry, calls)
        else:
            self._in_a_batch(base, telemetry, calls, number)
        if attacked or number % 40 == 23:
            self._report(base, telemetry, lockdown=attacked)

    def _fetch(self, job: Workload, run_id: int, correlation_id: str) -> Served:
        asked = {"workflow": job.workflow, "run_id": run_id, "correlationId": correlation_id}
        asked |= {"cluster": job.cluster} if job.cluster else {}
        target = f"{self._repository(job)}/actions/policies/workflow-policy?{urlencode(asked, quote_via=quote)}"
        status, body = self.send("GET", target, self.runner, b"")
        if status == 404:
            return Served()
        policy = self._json(status, body, target)
        return Served(policy["egress_policy"], frozenset(policy["allowed_endpoints"]))

    def _monitor(self, job: Workload, run_id: int, correlation_id: str) -> dict[str, str]:
        body = {"correlation_id": correlation_id, "job": job.job}
        told = self._post(f"{self._repository(job)}/actions/runs/{run_id}/monitor", {}, body)
        return {"X-One-Time-Key": told["one_time_key"]}

    def _calls(self, job: Workload, served: Served, number: int, chance: random.Random) -> Iterator[dict]:
        """The job's network events, in the agent's shape; a DNS answer before each endpoint's first connection."""
        endpoints = [*job.calls, *([(chance.choice(STRANGERS), 443)] if chance.random() < 0.08 else [])]
        # Every now and then a clock is years off, and the store must not mind.
        moment = self.now() - timedelta(seconds=len(endpoints) * 8) + timedelta(days=900 if number % 31 == 30 else 0)
        for host, port in endpoints:
            stopped = served.stops(host, port)
            address = SINKHOLE if stopped else f"198.18.{len(host)}.{port % 250 + 1}"
            moment += timedelta(milliseconds=700 + chance.randrange(900))
            yield {"type": "dns", "domainName": f"{host}.", "ipAddress": address, "timestamp": _written(moment)}
            for _ in range(0 if stopped else chance.choice((1, 1, 2, 4))):
                moment += timedelta(milliseconds=chance.randrange(900) + 1)
                yield self._connection(host, port, address, moment, chance)

    def _connection(self, host: str, port: int, address: str, moment: datetime, chance: random.Random) -> dict:
        tool = None
        for name in reversed((*chance.choice(PROCESSES), "Runner.Worker")):
            tool = {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "parent": tool}
        return {
            "type": "networkconnection",
            "ipAddress": address,
            "port": chance.choice((str(port), f"{port}(https)")) if port == 443 else str(port),
            "domainName": f"{host}.",
            "timestamp": _written(moment),
            "tool": tool,
            "step": chance.choice(("", "Run npm ci", "Build")),
        }

    def _note(self, job: Workload, served: Served, calls: list[dict]) -> None:
        ledger = self.ledger
        ledger.job_runs += 1
        ledger.jobs.add(job)
        ledger.without_policy += not served.mode
        for call in calls:
            host, stopped = call["domainName"].rstrip("."), call["ipAddress"] == SINKHOLE
            port = int(call.get("port", "443").partition("(")[0])
            if call["type"] == "dns" and not stopped:
                continue
            ledger.calls[f"{host}:{port}"] += 1
            ledger.blocked[f"{host}:{port}"] += stopped
            ledger.off_list += not stopped and served.frowns(host, port)

    def _one_by_one(self, base: str, telemetry: dict[str, str], calls: list[dict]) -> None:
        for call in calls:
            event = {name: value for name, value in call.items() if name != "type"}
            told = self._post(f"{base}/{call['type']}", telemetry, event)
            if told["stored"] != 1:
                raise Refused(f"an agent's event was not stored: {told}")

    def _in_a_batch(self, base: str, telemetry: dict[str, str], calls: list[dict], number: int) -> None:
        sent: list[object] = [*calls, *(["not an event", {"type": "dns"}] if number % 20 == 11 else [])]
        told = self._post(f"{base}/events", telemetry, sent, packed=True)
        self._expect(told, stored=len(calls), malformed=len(sent) - len(calls))
        if number % 13 == 5:
            # The answer was lost on its way, so the sender sends it all again.
            self._expect(self._post(f"{base}/events", telemetry, sent, packed=True), repeated=len(calls))
            self._add(repeated=len(calls), malformed=len(sent) - len(calls))
        self._add(malformed=len(sent) - len(calls))

    def _report(self, base: str, telemetry: dict[str, str], *, lockdown: bool) -> None:
        found = [{"id": "Privileged-Container", "detection": "docker run --privileged", "process": "dockerd"}]
        if lockdown:
            found = [
                {
                    "id": "Reverse-Shell",
                    "detection": "bash was connected to collect.telemetry.example:4444",
                    "endpoint": "collect.telemetry.example:4444",
                    "process": "bash",
                    "is_lockdown": True,
                    "timestamp": str(math.floor(self.now().timestamp())),
                }
            ]
        self._expect(self._post(f"{base}/detections", telemetry, found), stored=1)
        self._add(reports=1, lockdowns=int(lockdown))

    def _add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                setattr(self.ledger, name, getattr(self.ledger, name) + count)

    def _expect(self, told: dict, **counts: int) -> None:
        wrong = {name: told[name] for name, count in counts.items() if told[name] != count}
        if wrong:
            raise Refused(f"expected {counts}, got {told}")

    def _manage(self, path: str, body: dict) -> None:
        target = f"/v1/github/{self.owner}/actions/{path}"
        status, answer = self.send("POST", target, self.manager, json.dumps(body).encode())
        if status not in (200, 201, 204):
            raise Refused(f"POST {target}: {status} {answer[:500]!r}")

    def _post(self, target: str, headers: dict[str, str], body: object, *, packed: bool = False) -> dict:
        data = json.dumps(body).encode()
        if packed:
            data, headers = gzip.compress(data, mtime=0), {**headers, "Content-Encoding": "gzip"}
        return self._json(*self.send("POST", target, headers, data), target)

    def _json(self, status: int, body: bytes, target: str) -> dict:
        if status != 200:
            raise Refused(f"{target}: {status} {body[:500]!r}")
        value: dict = json.loads(body)
        return value

    def _repository(self, job: Workload) -> str:
        return f"/v1/github/{self.owner}/{job.repository}"


def _written(moment: datetime) -> str:
    """Down to nanoseconds, as the agent writes it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}123Z"


def differences(day: Day) -> list[str]:
    """What the store's baseline, asked over the API, has otherwise than the ledger; empty when nothing was lost."""
    status, body = day.send("GET", f"/v1/github/{day.owner}/actions/baseline", day.manager, b"")
    if status != 200:
        return [f"the baseline answered {status}"]
    data = json.loads(body)["data"]
    told = {row["endpoint"]: row["total_calls"] for row in data["endpoints"]}
    expected = day.ledger.reached
    found = [
        f"{name}: {told.get(name, 0)} instead of {expected.get(name, 0)} calls"
        for name in sorted({*told, *expected})
        if told.get(name, 0) != expected.get(name, 0)
    ]
    runs = data["total_workflow_runs"]
    return found + ([] if runs == day.ledger.runs else [f"{runs} workflow runs instead of {day.ledger.runs}"])


def over(client: httpx.Client) -> Send:
    """Sends over HTTP."""

    def send(method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        said = {"Content-Type": "application/json; charset=UTF-8", **headers} if body else headers
        answer = client.request(method, target, headers=said, content=body)
        return answer.status_code, answer.content

    return send


def main() -> int:
    parser = argparse.ArgumentParser(description="Let a day of jobs run against an empty organization of a store.")
    parser.add_argument("address", help="such as http://127.0.0.1:8000")
    parser.add_argument("--owner", default="octo-org")
    parser.add_argument("--runner-key", required=True, help="a vm-api-key")
    parser.add_argument("--management-key", required=True)
    parser.add_argument("--runs", type=int, default=FULL_DAY)
    parser.add_argument("--at-once", type=int, default=4, help="jobs that run at the same time")
    asked = parser.parse_args()
    with httpx.Client(base_url=asked.address, timeout=60) as client:
        keys = {"runner_key": asked.runner_key, "management_key": asked.management_key}
        day = Day(over(client), owner=asked.owner, runs=asked.runs, **keys)
        day.play(at_once=asked.at_once)
        wrong = differences(day)
    ledger = day.ledger
    calls, blocked = ledger.calls.total(), ledger.blocked.total()
    print(f"{ledger.runs:,} runs with {ledger.job_runs:,} jobs made {calls:,} calls, {blocked:,} of them blocked.")
    print("\n".join(wrong) or "The store counted the same.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
