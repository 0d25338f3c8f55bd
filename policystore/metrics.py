"""What the store counts about itself: written by whoever does something, read by whoever may read `/metrics`.

Below gunicorn all web processes count together, in any other process each for itself. Nothing here names an
organization, a repository or a policy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from policystore.cells import Cells

REMEMBERED = "remembered"
# How a fetch may end; `remembered` is a good answer from memory while the database is away.
OTHER = "other"
FETCH_OUTCOMES = ("200", "401", "403", "404", "503", REMEMBERED, OTHER)
# Upper bounds in seconds. The clients wait three seconds; what comes later is no answer to them.
FETCH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0)
INGEST_RESULTS = ("stored", "repeated", "malformed")
# Kinds of requests by how their paths begin; what begins with none of these is a page.
REQUEST_KINDS = {"/v1": "api", "/static/": "static", "/healthz": "probe", "/readyz": "probe", "/metrics": "probe"}
PAGE = "page"
KINDS = sorted({*REQUEST_KINDS.values(), PAGE})
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# Enough for workers that live beside their successors after several reloads.
MOST_PROCESSES = 256

_names = (
    *(("fetch", outcome) for outcome in FETCH_OUTCOMES),
    *(("fetch seconds up to", number) for number in range(len(FETCH_SECONDS) + 1)),
    ("fetch seconds", "sum"),
    *(("ingest", result) for result in INGEST_RESULTS),
    *((kind, status) for kind in KINDS for status in (*STATUSES, "seconds")),
    ("recorder", "waiting"),
    ("recorder", "dropped"),
)
_cell = {name: number for number, name in enumerate(_names)}
# Bound once, so that counting a fetch puts no names together.
_fetch = {outcome: _cell["fetch", outcome] for outcome in FETCH_OUTCOMES}
_first_bucket, _seconds = _cell["fetch seconds up to", 0], _cell["fetch seconds", "sum"]
_kinds = {kind: [_cell[kind, status] for status in (*STATUSES, "seconds")] for kind in KINDS}
_waiting, _dropped = _cell["recorder", "waiting"], _cell["recorder", "dropped"]

_cells = Cells(len(_names), rows=MOST_PROCESSES)
take_row = _cells.take_row
write_to = _cells.write_to


def give_back(row: int) -> None:
    """The process that had this row has ended: what it counted stays, what waited in it does not."""
    _cells.clear(row, _waiting)
    _cells.give_back(row)


def count_fetch(outcome: str, seconds: float) -> None:
    """One fetch that was answered; an outcome that is none of FETCH_OUTCOMES counts as OTHER, and fails no fetch."""
    _cells.add(_fetch.get(outcome, _fetch[OTHER]))
    _cells.add(_first_bucket + bisect_left(FETCH_SECONDS, seconds))
    _cells.add(_seconds, seconds)


def count_ingest(*, stored: int, repeated: int, malformed: int) -> None:
    """One delivery of events."""
    for result, count in zip(INGEST_RESULTS, (stored, repeated, malformed), strict=True):
        _cells.add(_cell["ingest", result], count)


def count_request(path: str, status: int, seconds: float) -> None:
    """One request of any kind, fetches too."""
    cells = _kinds[kind_of(path)]
    _cells.add(cells[min(max(status // 100, 1), 5) - 1])
    _cells.add(cells[-1], seconds)


def kind_of(path: str) -> str:
    """Which of KINDS a request for this path is."""
    for begins, kind in REQUEST_KINDS.items():
        if path.startswith(begins):
            return kind
    return PAGE


def tell_records_waiting(count: int) -> None:
    """So many fetches of this process wait to be recorded."""
    _cells.set(_waiting, count)


def count_dropped_record() -> None:
    """One fetch that will not be recorded."""
    _cells.add(_dropped)


class Counts:
    """The counts as a collector of prometheus_client."""

    def collect(self) -> Iterator[Metric]:
        """Every metric, summed over the processes."""
        yield _by_label("policystore_fetches", "Policy fetches by outcome.", "outcome", "fetch", FETCH_OUTCOMES)
        yield _fetch_histogram()
        yield _requests()
        yield _request_seconds()
        yield _by_label(
            "policystore_ingest_events", "Events that agents sent, by result.", "result", "ingest", INGEST_RESULTS
        )
        yield GaugeMetricFamily(
            "policystore_recorder_waiting",
            "Answered fetches that wait to be recorded as job runs.",
            value=_cells.total(_waiting),
        )
        yield CounterMetricFamily(
            "policystore_recorder_dropped",
            "Answered fetches that were never recorded, since too many waited.",
            value=_cells.total(_dropped),
        )


def _by_label(name: str, help_text: str, label: str, kind: str, values: Iterable[str]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value in values:
        family.add_metric([value], _cells.total(_cell[kind, value]))
    return family


def _fetch_histogram() -> Metric:
    buckets, reached = [], 0.0
    for number, bound in enumerate((*FETCH_SECONDS, float("inf"))):
        reached += _cells.total(_first_bucket + number)
        buckets.append(("+Inf" if bound == float("inf") else str(bound), reached))
    family = HistogramMetricFamily("policystore_fetch_seconds", "Time to answer a policy fetch.")
    family.add_metric([], buckets, _cells.total(_seconds))
    return family


def _requests() -> Metric:
    family = CounterMetricFamily("policystore_requests", "Requests by kind and status.", labels=["kind", "status"])
    for kind, cells in _kinds.items():
        for status, cell in zip(STATUSES, cells[:-1], strict=True):
            family.add_metric([kind, status], _cells.total(cell))
    return family


def _request_seconds() -> Metric:
    family = SummaryMetricFamily("policystore_request_seconds", "Time to answer a request.", labels=["kind"])
    for kind, (*cells, seconds_cell) in _kinds.items():
        count = int(sum(_cells.total(cell) for cell in cells))
        family.add_metric([kind], count_value=count, sum_value=_cells.total(seconds_cell))
    return family
