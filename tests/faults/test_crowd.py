"""Many systems change policies at once, over HTTP: nothing is lost, and history tells exactly what is there."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from contextlib import closing
from random import Random

import psycopg

from tests.both_databases import CHOSEN
from tests.faults import clients
from tests.operations.production import manage

SYSTEMS = 8
POLICIES = [f"shared-{number}" for number in range(6)]
SCOPES = [f"repository-{number}" for number in range(12)]


def rows(store, statement):
    """What the database holds, past the store."""
    if "DATABASE_URL" not in store.settings:
        path = f"{store.settings['POLICYSTORE_DATA_DIR']}/policystore.sqlite3"
        with closing(sqlite3.connect(path)) as database:
            return database.execute(statement).fetchall()
    with psycopg.connect(store.settings["DATABASE_URL"]) as database:
        return database.execute(statement).fetchall()


def listed(value):
    return json.loads(value) if isinstance(value, str) else value


def replayed(events):
    """Who holds each scope when the events have happened; a scope is never given to a second policy."""
    held = {}
    for policy, kind, added, removed in events:
        for scope in listed(removed):
            assert held.pop(scope) == policy, f"{kind}: {scope} was not the policy's to lose"
        for scope in listed(added):
            assert scope not in held, f"{kind}: {scope} was somebody's"
            held[scope] = policy
    return held


def test_a_crowd_leaves_a_history_that_tells_exactly_what_is_there(store, full, tell):
    steps = 1_000 if full else 15
    web = store.start(WEB_CONCURRENCY="2")
    manager = clients.Manager(web.port, store.keys["management"])

    def work(number):
        random, told, saves = Random(number), Counter(), []
        for step in range(steps):
            name, verb = (
                random.choice(POLICIES),
                random.choice(("save", "save", "attach", "attach", "detach", "delete")),
            )
            if verb == "save":
                marker = f"s{number}-{step}.example.com:443"
                answer = manager.save(name, ["github.com:443", marker])
                saves += [marker] if answer.status == 200 else []
            elif verb == "attach":
                answer = manager.attach(name, *random.sample(SCOPES, 2), replace=random.random() < 0.7)
            elif verb == "detach":
                answer = manager.ask("DELETE", f"{name}/attach")
            else:
                answer = manager.ask("DELETE", name) if random.random() < 0.3 else manager.ask("GET", name)
            told[answer.status] += 1
        return told, saves

    results = clients.together(SYSTEMS, work)
    told = sum((counted for counted, _ in results), Counter())
    saves = [marker for _, markers in results for marker in markers]
    web.stop()

    events = rows(
        store,
        "SELECT subject_id, kind, scopes_added, scopes_removed FROM audit_log_historyevent"
        " WHERE subject_type = 'policy' ORDER BY id",
    )
    held = replayed(events)
    assert held == {
        scope: policy for policy, scope in rows(store, "SELECT policy_id, scope_key FROM policies_attachment")
    }
    texts = rows(
        store, "SELECT text_after FROM audit_log_historyevent WHERE kind IN ('created', 'updated') AND actor <> ''"
    )
    markers = Counter(line.strip(" -\"'") for (text,) in texts for line in text.splitlines() if ".example.com" in line)
    assert all(markers[marker] == 1 for marker in saves)
    assert sum(markers.values()) == len(saves)
    versions = {}
    for policy, version in rows(
        store,
        "SELECT subject_id, version FROM audit_log_historyevent WHERE kind IN ('created', 'updated') ORDER BY id",
    ):
        assert version == versions.get(policy, 0) + 1, "an update was lost"
        versions[policy] = version
    counts = rows(
        store,
        "SELECT count(*) FROM policies_policy p WHERE attachment_count <>"
        " (SELECT count(*) FROM policies_attachment a WHERE a.policy_id = p.id)",
    )
    assert counts == [(0,)]
    manage(store.settings, "verify_history")
    tell(
        f"crowd on {os.environ[CHOSEN]}: {sum(told.values())} changes by {SYSTEMS} systems, "
        f"answers {dict(sorted(told.items()))}, {len(events)} events, history verifies"
    )
    assert set(told) <= {200, 204, 404, 409}, told
