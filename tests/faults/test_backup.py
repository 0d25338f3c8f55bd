"""A backup that is made while everybody writes is of one moment, and an empty machine goes on from it."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import psycopg

from tests.both_databases import CHOSEN, DATABASES, postgresql
from tests.faults import clients
from tests.faults.test_crowd import listed, replayed, rows
from tests.operations import production
from tests.operations.production import Production, manage
from tests.operations.running import wait_until

WRITERS = 6
RUN = "/v1/github/octo-org/hello-world/actions/runs/1/monitor"
EVENTS = "/v1/github/octo-org/hello-world/actions/jobs/{job}/events"


class Writers:
    """Systems that edit and attach policies and jobs that send telemetry, until they are told to stop.

    `acknowledged` holds the markers of what was saved and sent, and the repositories that a policy was attached to;
    `refused` every answer but 200. Each pauses for so many seconds after its three changes.
    """

    def __init__(self, web, keys, *, pause):
        self._web, self._keys, self._pause = web, keys, pause
        self.acknowledged = {"saves": [], "attachments": [], "events": []}
        self.refused = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]

    def __enter__(self):
        job = json.dumps({"correlation_id": "job-1", "job": "build"})
        assert clients.fetch(self._web.port, self._keys["key"], "hello-world", 1).status == 200
        assert clients.call(self._web.port, "POST", RUN, {"Content-Type": "application/json"}, job).status == 200
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def so_far(self):
        return {kind: list(told) for kind, told in self.acknowledged.items()}

    def count(self):
        return sum(map(len, self.acknowledged.values()))

    def _write(self, number):
        manager, step = clients.Manager(self._web.port, self._keys["management"]), 0
        headers = {"Authorization": f"vm-api-key {self._keys['key']}", "Content-Type": "application/json"}
        while not self._stopping.is_set():
            step += 1
            name, marker = f"policy-{number}", f"w{number}-{step}.example.com"
            self._note("saves", marker, manager.save(name, [f"{marker}:443"]))
            repository = f"repository-{number}-{step}"
            self._note("attachments", repository, manager.attach(name, repository))
            if step % 5 == 0:
                manager.ask("DELETE", f"{name}/attach")
            event = {"type": "networkconnection", "domainName": marker, "ipAddress": "192.0.2.1", "port": "443"}
            body = json.dumps([event, {**event, "port": "80"}, {**event, "port": "8080"}])
            self._note("events", marker, self._send(f"job-{number}-{step}", headers, body))
            self._stopping.wait(self._pause)

    def _send(self, job, headers, body):
        # A job of its own each time: one job may send only 20 batches a minute.
        return clients.call(self._web.port, "POST", EVENTS.format(job=job), headers, body, timeout=30)

    def _note(self, kind, what, answer):
        told = self.acknowledged[kind] if answer.status == 200 else self.refused
        told.append(what if answer.status == 200 else (kind, what, answer.status, answer.body))


@contextmanager
def empty_machine(database, store, folder):
    """The settings of a store that has nothing yet, on either database."""
    if database == "sqlite":
        folder.mkdir()
        yield {**production.SETTINGS, "POLICYSTORE_MODE": "local", "POLICYSTORE_DATA_DIR": str(folder)}
        return
    with ExitStack() as stack:
        if os.environ[CHOSEN] == "sqlite":
            yield {**production.SETTINGS, "DATABASE_URL": stack.enter_context(postgresql()).get_uri()}
            return
        address, name = store.settings["DATABASE_URL"], folder.name
        with psycopg.connect(address, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}")
        yield {**store.settings, "DATABASE_URL": address.replace("/postgres?", f"/{name}?")}


def lost(restored, acknowledged):
    """What was acknowledged and is not there."""
    texts = "\n".join(text for (text,) in rows(restored, "SELECT text_after FROM audit_log_historyevent"))
    added = rows(restored, "SELECT scopes_added FROM audit_log_historyevent")
    attached = {scope for (scopes,) in added for scope in listed(scopes)}
    seen = {host for (host,) in rows(restored, "SELECT host FROM traffic_networkevent")}
    gone = [marker for marker in acknowledged["saves"] if f"{marker}:443" not in texts]
    gone += [name for name in acknowledged["attachments"] if f"repository:octo-org/{name}" not in attached]
    return gone + [marker for marker in acknowledged["events"] if marker not in seen]


def half_written(restored):
    """Where one part of a change is there and another is not."""
    events = rows(
        restored,
        "SELECT subject_id, kind, scopes_added, scopes_removed FROM audit_log_historyevent"
        " WHERE subject_type = 'policy' ORDER BY id",
    )
    held = dict(rows(restored, "SELECT scope_key, policy_id FROM policies_attachment"))
    half = [scope for scope, _ in replayed(events).items() ^ held.items()]
    half += rows(
        restored,
        "SELECT p.name FROM policies_policy p WHERE NOT EXISTS (SELECT 1 FROM audit_log_historyevent e"
        " WHERE e.subject_id = p.id AND e.version = p.version AND e.text_after = p.text) OR p.attachment_count <>"
        " (SELECT count(*) FROM policies_attachment a WHERE a.policy_id = p.id)",
    )
    # The events of a batch come together, and with what is counted of them.
    batches = "SELECT host FROM traffic_networkevent WHERE kind = 'connection' GROUP BY host HAVING count(*) <> 3"
    counted = "SELECT COALESCE(SUM(calls), 0) FROM traffic_runendpoint"
    told = "SELECT count(*) FROM traffic_networkevent WHERE kind = 'connection'"
    return half + rows(restored, batches) + ([] if rows(restored, counted) == rows(restored, told) else ["counts"])


def goes_on(settings, keys):
    """Whether the restored store serves the newest policy of its history, and takes the next change."""
    web = Production(settings, GUNICORN_LOG_LEVEL="critical")
    try:
        manager = clients.Manager(web.port, keys["management"])
        assert manager.save("policy-0", ["after.example.com:443"]).status == 200
        assert manager.attach("policy-0", "hello-world").status == 200
        answer = clients.fetch(web.port, keys["key"], "hello-world", 2)
        assert (answer.status, answer.json()["allowed_endpoints"]) == (200, ["after.example.com:443"])
    finally:
        web.end()
    assert "verified" in manage(settings, "verify_history")


def test_a_backup_under_load_is_of_one_moment_and_goes_on_elsewhere(store, tmp_path, full, tell):
    here = os.environ[CHOSEN]
    backups, volume, targets = (3, 600, DATABASES) if full else (1, 30, (here,))
    made = []
    web = store.start(WEB_CONCURRENCY="2")
    with Writers(web, store.keys, pause=0 if full else 0.1) as writers:
        for number in range(backups):
            wanted = writers.count() + volume
            wait_until(lambda wanted=wanted: writers.count() >= wanted, "writes")
            before, path = writers.so_far(), tmp_path / f"{number}.backup"
            manage(store.settings, "backup", str(path))
            made.append((path, before, writers.count() - sum(map(len, before.values()))))
    web.stop()
    assert writers.refused == []
    gone, half = [], []
    for path, before, _ in made:
        for target in targets:
            with empty_machine(target, store, tmp_path / f"restored_{path.stem}_{target}") as settings:
                assert "history events verified" in manage(settings, "restore", str(path))
                restored = SimpleNamespace(settings=settings)
                gone, half = gone + lost(restored, before), half + half_written(restored)
                if full and path is made[-1][0]:
                    goes_on(settings, store.keys)
    tell(
        f"backup on {here}: {backups} made while {WRITERS} systems and jobs wrote, "
        f"{sum(map(len, made[-1][1].values()))} changes and batches acknowledged before the last and "
        f"{sum(during for _, _, during in made)} while they were made, each restored on {' and '.join(targets)}: "
        f"{len(gone)} lost, {len(half)} half written, history verifies"
    )
    assert gone == []
    assert half == []
    assert all(during for _, _, during in made), "nobody wrote while a backup was made"
