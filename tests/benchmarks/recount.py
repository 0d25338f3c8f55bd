"""Whether the store's events and sums are what its replies acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CALL = "(kind = 'connection' OR status = 'blocked')"
BY_RUN = f"""
SELECT job_run_id, host, port, count(*), sum(CASE WHEN status = 'blocked' THEN 1 ELSE 0 END),
    coalesce(min(CASE WHEN status <> 'blocked' THEN occurred_at END), min(occurred_at)),
    coalesce(max(CASE WHEN status <> 'blocked' THEN occurred_at END), max(occurred_at))
FROM traffic_networkevent WHERE {CALL} GROUP BY job_run_id, host, port
"""
RUN_ENDPOINTS = """
SELECT job_run_id, host, port, calls, blocked_calls, first_seen_at, last_seen_at FROM traffic_runendpoint
"""
BY_JOB = """
SELECT lower(repository), workflow, job, cluster, host, port, sum(e.calls), sum(e.blocked_calls),
    count(DISTINCT CASE WHEN e.calls > e.blocked_calls THEN r.run_id END),
    coalesce(min(CASE WHEN e.calls > e.blocked_calls THEN e.first_seen_at END), min(e.first_seen_at)),
    coalesce(max(CASE WHEN e.calls > e.blocked_calls THEN e.last_seen_at END), max(e.last_seen_at))
FROM traffic_runendpoint e JOIN runners_jobrun r ON r.id = e.job_run_id
GROUP BY lower(repository), workflow, job, cluster, host, port
"""
JOB_ENDPOINTS = """
SELECT repository, workflow, job, cluster, host, port, calls, blocked_calls, runs, first_seen_at, last_seen_at
FROM traffic_jobendpoint
"""
OF_RUNS = f"""
SELECT job_run_id, count(*), sum(CASE WHEN status = 'blocked' THEN 1 ELSE 0 END),
    sum(CASE WHEN status IN ('off_list', 'would_be_blocked') THEN 1 ELSE 0 END)
FROM traffic_networkevent WHERE {CALL} GROUP BY job_run_id
"""
RUNS = "SELECT id, calls, blocked_calls, off_list_calls FROM runners_jobrun WHERE calls > 0"
SAME = ((BY_RUN, RUN_ENDPOINTS), (BY_JOB, JOB_ENDPOINTS), (OF_RUNS, RUNS))

Ask = Callable[[str], Any]


def check(ask: Ask, acknowledged: int, unheard: int) -> None:
    """Count everything again, by statements that both databases understand; `ask` returns a statement's first row."""
    (stored,) = ask("SELECT count(*) FROM traffic_networkevent")
    assert acknowledged <= stored <= acknowledged + unheard, (acknowledged, stored, unheard)
    for counted, kept in SAME:
        for one, other in ((counted, kept), (kept, counted)):
            (different,) = ask(f"SELECT count(*) FROM (SELECT * FROM ({one}) a EXCEPT SELECT * FROM ({other}) b) c")
            assert different == 0, f"{different} rows differ: {one}"
    (judged,) = ask("SELECT count(*) FROM traffic_networkevent WHERE status = 'would_be_blocked'")
    assert judged > 0, "no call was judged to be off the list"
