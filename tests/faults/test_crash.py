"""The product is killed under writes, again and again: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from random import Random

from tests.both_databases import CHOSEN
from tests.faults import clients
from tests.faults.test_crowd import rows
from tests.operations.production import manage
from tests.operations.running import alive, wait_until

WRITERS = 4
EVENTS = "/v1/github/octo-org/hello-world/actions/jobs/{job}/events"


def write(web, store, number, turn, acknowledged, stopping):
    """Save policies and send events until the store is gone; remember what it acknowledged."""
    manager, step = clients.Manager(web.port, store.keys["management"]), 0
    headers = {"Authorization": f"vm-api-key {store.keys['key']}", "Content-Type": "application/json"}
    while not stopping.is_set():
        step += 1
        marker = f"k{turn}-{number}-{step}.example.com"
        if step % 2:
            if manager.save(f"policy-{number}", [f"{marker}:443"]).status == 200:
                acknowledged["saves"].append(marker)
            continue
        event = {"type": "networkconnection", "domainName": marker, "ipAddress": "192.0.2.1", "port": "443"}
        # A job of its own each time: one job may send only 20 batches a minute.
        path = EVENTS.format(job=f"job-{turn}-{number}-{step}")
        if clients.call(web.port, "POST", path, headers, json.dumps([event])).status == 200:
            acknowledged["events"].append(marker)


def count(acknowledged):
    return sum(map(len, acknowledged.values()))


def test_what_was_acknowledged_survives_every_kill(store, full, tell):
    kills, random = 200 if full else 2, Random(3)
    acknowledged = {"saves": [], "events": []}
    for turn in range(kills):
        web, stopping = store.start(WEB_CONCURRENCY="2"), threading.Event()
        if turn == 0:
            assert clients.fetch(web.port, store.keys["key"], "hello-world", 1).status == 200
            monitor = json.dumps({"correlation_id": "job-1", "job": "build"})
            path = "/v1/github/octo-org/hello-world/actions/runs/1/monitor"
            assert clients.call(web.port, "POST", path, {"Content-Type": "application/json"}, monitor).status == 200
        threads = [
            threading.Thread(target=write, args=(web, store, number, turn, acknowledged, stopping))
            for number in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        wanted = count(acknowledged) + random.randint(4, 12)
        wait_until(lambda wanted=wanted: count(acknowledged) >= wanted, "writes")
        time.sleep(random.random() * 0.2)
        family = [web.process.pid, *web.family()]
        for process_id in family:
            os.kill(process_id, signal.SIGKILL)
        stopping.set()
        for thread in threads:
            thread.join()
        wait_until(lambda family=family: not any(map(alive, family[1:])), "the end of all")

    saved = "\n".join(text for (text,) in rows(store, "SELECT text_after FROM audit_log_historyevent"))
    lost = [marker for marker in acknowledged["saves"] if f"{marker}:443" not in saved]
    seen = {host for (host,) in rows(store, "SELECT host FROM traffic_networkevent")}
    lost += [marker for marker in acknowledged["events"] if marker not in seen]
    half = rows(
        store,
        "SELECT p.name FROM policies_policy p WHERE NOT EXISTS (SELECT 1 FROM audit_log_historyevent e"
        " WHERE e.subject_id = p.id AND e.version = p.version AND e.text_after = p.text)",
    )
    counted = rows(store, "SELECT SUM(calls) FROM traffic_runendpoint")[0][0] or 0
    events = rows(store, "SELECT count(*) FROM traffic_networkevent WHERE kind = 'connection'")[0][0]
    if os.environ[CHOSEN] == "sqlite":
        assert rows(store, "PRAGMA integrity_check") == [("ok",)]
    manage(store.settings, "verify_history")
    tell(
        f"crash on {os.environ[CHOSEN]}: {kills} kills, {len(acknowledged['saves'])} saves and "
        f"{len(acknowledged['events'])} events acknowledged, {len(lost)} lost, {len(half)} half written"
    )
    assert lost == []
    assert half == []
    assert counted == events
    assert acknowledged["saves"]
    assert acknowledged["events"]
    assert count(acknowledged) >= 4 * kills
