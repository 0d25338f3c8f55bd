"""Jobs get the right policy whatever happens to the store: edits, killed workers, reloads, a database that restarts."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from itertools import count
from random import Random

import pytest

from tests.both_databases import CHOSEN
from tests.faults import clients
from tests.operations.running import age, children, wait_until

CLIENTS = 8
REPOSITORIES = [f"repository-{number}" for number in range(10)]
NOWHERE = "without-policy"
# Granian takes the death of a younger worker for a crash loop, and leaves it to what started it to start over.
SETTLED_SECONDS = 6
# How long a client pauses after an answer, where a few hundred fetches are enough.
PAUSE_SECONDS = 0.05


class Edits:
    """Edits and attaches policies all the time; remembers which version of each was acknowledged last."""

    def __init__(self, manager):
        self.manager = manager
        self.acknowledged = dict.fromkeys(REPOSITORIES, 0)
        self.done = self.refused = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._edit)

    def prepare(self):
        for repository in REPOSITORIES:
            assert self.manager.save(repository, endpoints(0)).status == 200
            assert self.manager.attach(repository, repository).status == 200
        # The organization's own policy would apply to the repository that has none.
        assert self.manager.ask("DELETE", "default/attach").status == 200
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self._thread.join()

    def _edit(self):
        number, random = 0, Random(7)
        while not self._stopping.is_set():
            number += 1
            repository = random.choice(REPOSITORIES)
            saved = self.manager.save(repository, endpoints(number))
            if saved.status == 200:
                self.acknowledged[repository] = max(self.acknowledged[repository], number)
                self.manager.attach(repository, f"other-{number % 50}")
                self.done += 1
            else:
                self.refused += 1
            time.sleep(0.02)


def endpoints(number):
    return ["github.com:443", f"v{number}.example.com:443"]


def wrong(answer, repository, least):
    """Why this answer is not the right one; None where it is."""
    if repository == NOWHERE:
        return None if answer.status == 404 else f"{answer.status} for a repository without a policy"
    if answer.status != 200:
        return f"{answer.status} after {answer.tries} tries"
    told = answer.json()
    if (told["policy_name"], told["egress_policy"], told["allowed_endpoints"][0]) != (
        repository,
        "block",
        "github.com:443",
    ):
        return f"another policy: {answer.body[:200]!r}"
    version = int(told["allowed_endpoints"][1][1:].split(".")[0])
    # While the database is away an earlier answer is right; otherwise what was acknowledged before must be there.
    return None if answer.remembered or version >= least else f"version {version} after {least} was acknowledged"


def test_no_fetch_fails_while_policies_change_workers_die_and_the_database_restarts(store, full, tell):
    fetches = 10_000 if full else 600
    # SQLite has no server to restart.
    restartable = store.restart_database is not None
    least_turns = (15 if full else 5) if restartable else (12 if full else 4)
    web, fetch = store.start(WEB_CONCURRENCY="1"), store.start_fetch(WEB_CONCURRENCY="2")
    edits = Edits(clients.Manager(web.port, store.keys["management"]))
    edits.prepare()
    key = store.keys["key"]
    for number in range(8):
        for repository in (*REPOSITORIES, NOWHERE):
            assert clients.fetch(fetch.port, key, repository, f"warm-{number}").status in (200, 404)
    failures, answers, restarts, turns = [], [], [], []
    # On a fast machine all would be answered before anything has happened.
    numbers, patience = count(), time.monotonic() + 120
    lock, over = threading.Lock(), threading.Event()

    def run(client):
        random = Random(client)
        while True:
            with lock:
                number = next(numbers)
            if number >= fetches and (len(turns) >= least_turns or time.monotonic() > patience):
                return
            repository = random.choice((*REPOSITORIES, NOWHERE))
            least = edits.acknowledged.get(repository, 0)
            answer = clients.fetch(fetch.port, key, repository, number)
            answers.append(answer)
            if problem := wrong(answer, repository, least):
                failures.append(problem)
            if not full:
                time.sleep(PAUSE_SECONDS)

    def disturb():
        random = Random(1)
        while not over.wait(1.0 if full else 0.7):
            turn = len(turns) + 1
            if turn % 5 == 0 and restartable:
                began = time.monotonic()
                store.restart_database()
                restarts.append((began - 0.5, time.monotonic() + 1.5))
            elif turn % 5 == 3:
                fetch.process.send_signal(signal.SIGHUP)
            elif workers := [worker for worker in children(fetch.process.pid) if age(worker) > SETTLED_SECONDS]:
                os.kill(random.choice(workers), signal.SIGKILL)
            else:
                continue
            turns.append(turn)

    chaos = threading.Thread(target=disturb)
    chaos.start()
    clients.together(CLIENTS, run)
    over.set()
    chaos.join()
    edits.stop()
    outside = [a.seconds for a in answers if not any(begin <= a.began <= end for begin, end in restarts)]
    p99, worst = statistics.quantiles(outside, n=100)[98], max(a.seconds for a in answers)
    retried = sum(a.tries > 1 for a in answers)
    tell(
        f"availability on {os.environ[CHOSEN]}: {len(answers)} fetches by {CLIENTS} clients, {len(failures)} wrong, "
        f"{retried} tried again, {edits.done} edits, {len(turns) - len(restarts)} kills and reloads, "
        f"{len(restarts)} restarts of the database, "
        f"p99 {p99 * 1000:.0f} ms outside of them, slowest {worst * 1000:.0f} ms"
    )
    assert failures == []
    assert len(answers) >= fetches
    assert len(turns) >= least_turns
    assert bool(restarts) == restartable
    assert edits.done >= 3
    # How long answers take says something on an idle machine alone; a client that waits three seconds tries again.
    if full:
        assert worst < clients.TIMEOUT_SECONDS
        assert p99 < 0.3


@pytest.mark.production
def test_a_database_that_hangs_is_answered_for_from_memory(store, tell):
    # Each process remembers what it answered itself; of two, one may have answered nothing yet.
    fetch = store.start_fetch(WEB_CONCURRENCY="1")
    key = store.keys["key"]
    for number in range(30):
        assert clients.fetch(fetch.port, key, "hello-world", f"warm-{number}").status == 200
    answers = []

    def run(client):
        for number in range(10):
            answers.append(clients.fetch(fetch.port, key, "hello-world", f"hangs-{client}-{number}"))
            time.sleep(0.2)

    processes = store.database_processes()
    try:
        for process_id in processes:
            os.kill(process_id, signal.SIGSTOP)
        clients.together(CLIENTS, run)
    finally:
        for process_id in processes:
            os.kill(process_id, signal.SIGCONT)
    wait_until(
        lambda: not clients.fetch(fetch.port, key, "hello-world", "again").remembered, "an answer of the database"
    )
    slowest = max(answer.seconds for answer in answers)
    tell(
        f"a database that hangs: {len(answers)} fetches by {CLIENTS} clients answered from memory, "
        f"slowest {slowest * 1000:.0f} ms"
    )
    assert {(answer.status, answer.remembered, answer.tries) for answer in answers} == {(200, True, 1)}
