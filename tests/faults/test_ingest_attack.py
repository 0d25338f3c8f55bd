"""Fetches are answered in time while anyone, without an API key, posts batches that unpack to a thousand times more."""

from __future__ import annotations

import gzip
import os
import statistics
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.both_databases import CHOSEN
from tests.faults import clients
from tests.operations.running import children

JOBS = "/v1/github/octo-org/hello-world/actions"
FETCH = f"{JOBS}/policies/workflow-policy?workflow=ci.yml&run_id="
CLIENTS, CONNECTIONS = 4, 12
# Of some 15 kB: 270 kB/s for each process.
BATCHES_PER_SECOND = 18
MOST_MEBIBYTES = 300


class Attack:
    """Posts a batch of 5.2 million events to each of some processes, at a fixed rate; `statuses` counts the answers."""

    def __init__(self, ports, keys):
        self._batch = gzip.compress(b"[" + b"{}," * 5_200_000 + b"{}]")
        self._stopping = threading.Event()
        self.statuses = {port: Counter() for port in ports}
        self._threads = [
            threading.Thread(target=self._post, args=(port, *job)) for port in ports for job in keys.items()
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
            # Evenly, and not all together.
            time.sleep(1 / BATCHES_PER_SECOND / len(self.statuses))
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _post(self, port, job, key):
        headers = {"X-One-Time-Key": key, "Content-Encoding": "gzip", "Content-Type": "application/json"}
        while not self._stopping.is_set():
            answer = clients.call(port, "POST", f"{JOBS}/jobs/{job}/events", headers, self._batch, timeout=30)
            self.statuses[port][answer.status] += 1
            self._stopping.wait(CONNECTIONS / BATCHES_PER_SECOND - answer.seconds)


def one_time_keys(port):
    """Register jobs as anyone can; returns the key of each."""
    keys = {}
    for number in range(CONNECTIONS):
        body = f'{{"correlation_id":"attack-{number}","job":"build"}}'
        answer = clients.call(port, "POST", f"{JOBS}/runs/{number}/monitor", {}, body)
        keys[f"attack-{number}"] = answer.json()["one_time_key"]
    return keys


def fetches(port, key, count):
    """The answers to so many fetches, each tried once; several clients ask side by side."""
    answers = []

    def ask(client):
        for number in range(count // CLIENTS):
            headers = {"Authorization": f"vm-api-key {key}"}
            answers.append(clients.call(port, "GET", f"{FETCH}{client}{number}", headers))

    clients.together(CLIENTS, ask)
    return answers


def p99(answers):
    return statistics.quantiles((answer.seconds for answer in answers), n=100)[98] * 1000


def mebibytes(process_id):
    """The most memory that the process has used."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.production
def test_fetches_are_answered_in_time_beside_batches_that_unpack_to_much_more(store, full, tell):
    count = 10_000 if full else 200
    web, fetch = store.start(), store.start_fetch()
    processes = [
        process for started in (web, fetch) for process in (started.process.pid, *children(started.process.pid))
    ]
    before = fetches(fetch.port, store.keys["key"], count)
    with Attack([web.port, fetch.port], one_time_keys(fetch.port)) as attack:
        beside = fetches(fetch.port, store.keys["key"], count)
    wrong = [a for a in beside if a.status != 200 or a.json()["policy_name"] != "default"]
    late = [a for a in beside if a.seconds >= clients.TIMEOUT_SECONDS]
    memory = max(map(mebibytes, processes))
    ratio = p99(beside) / p99(before)
    answered = [dict(attack.statuses[port]) for port in (web.port, fetch.port)]
    tell(
        f"batches that unpack to much more on {os.environ[CHOSEN]}: {len(beside)} fetches, {len(wrong)} wrong, "
        f"{len(late)} above 3 s, p99 {p99(beside):.0f} ms, without them {p99(before):.0f} ms (ratio {ratio:.1f}); "
        f"most memory of a process {memory:.0f} MiB; the web process answered {answered[0]}, "
        f"the fetch process {answered[1]}"
    )
    assert wrong == late == []
    assert memory < MOST_MEBIBYTES
    # All were refused. A client that still sends when it is refused may see its connection closed instead: 0.
    assert attack.statuses[fetch.port].keys() <= {0, 421}
    assert attack.statuses[web.port].keys() <= {0, 413, 429}
    assert attack.statuses[fetch.port][421] > 0
    assert attack.statuses[web.port][413] > 0
    # On a busy machine, a ratio of short runs says little.
    if full:
        assert ratio <= 3
