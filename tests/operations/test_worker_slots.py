"""The counter files of a service: one slot for each running process, reused, and removed with the service."""

import os
import re
import subprocess
import sys

import pytest

from policystore.web import metrics
from policystore.web.metrics import FILE_BYTES, RUNNING_PREFIX, WorkerSlots
from tests.both_databases import ROOT

# Counts in three workers, one of which was killed and replaced; prints what a scrape of the parent returns.
SERVICE = """
import os, signal
from prometheus_client import generate_latest
from policystore.web import metrics

def worker(fetches, waiting, number=None):
    child = os.fork()
    if child == 0:
        for _ in range(fetches):
            metrics.count_fetch("200", 0.002)
        metrics.set_records_waiting(waiting)
        metrics.count_request("/v1", 200, 0.25)
        if number:
            os.kill(os.getpid(), number)
        os._exit(0)
    os.waitpid(child, 0)

metrics.share_between_workers()
metrics.count_fetch("200", 0.002)
worker(1000, waiting=7, number=signal.SIGKILL)
worker(2000, waiting=5)
print(os.environ["PROMETHEUS_MULTIPROC_DIR"])
print(*os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
print(generate_latest(metrics.registry()).decode())
"""

KILLED_SERVICE = """
import os, signal, sys
from pathlib import Path
from policystore.web.metrics import WorkerSlots

WorkerSlots(Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def in_a_child(slots, then):
    """Fork a process that takes a slot and ends; returns what `then` wrote about it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        slots.take()
        os.write(writer, str(then(slots)).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        return said.read()


@pytest.fixture
def slots(tmp_path):
    return WorkerSlots(tmp_path)


def test_totals_include_workers_that_were_killed_and_gauges_do_not():
    done = subprocess.run([sys.executable, "-c", SERVICE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder, files, scraped = done.stdout.split("\n", 2)
    samples = dict(line.rsplit(" ", 1) for line in scraped.splitlines() if line and line[0] != "#")
    assert float(samples['policystore_fetches_total{outcome="200"}']) == 3001
    assert float(samples['policystore_fetches_total{outcome="503"}']) == 0
    assert float(samples["policystore_fetch_seconds_count"]) == 3001
    assert float(samples['policystore_fetch_seconds_bucket{le="0.001"}']) == 0
    assert float(samples['policystore_fetch_seconds_bucket{le="0.0025"}']) == 3001
    assert float(samples['policystore_requests_total{kind="api",status="2xx"}']) == 2
    assert float(samples['policystore_request_seconds_sum{kind="api"}']) == 0.5
    assert float(samples["policystore_recorder_waiting"]) == 0
    assert "policystore_recorder_dropped_total" in samples
    assert not re.search(r"_created|pid=", scraped)
    # Both workers had the same slot.
    assert sorted(file for file in files.split() if file.endswith(".lock")) == ["0.lock", "1.lock"]
    assert not os.path.exists(folder)


def test_processes_that_run_at_the_same_time_have_different_slots(slots):
    assert slots.number == 0
    nested = in_a_child(slots, lambda mine: f"{mine.number} {in_a_child(mine, lambda other: other.number)}")
    assert nested == "1 2"
    assert in_a_child(slots, lambda mine: mine.number) == "1"


def test_files_are_allocated_before_they_are_written(slots):
    files = list(slots.folder.glob("*_0.db"))
    assert len(files) == 4
    assert all(file.stat().st_blocks * 512 >= FILE_BYTES for file in files)


def test_a_worker_without_room_for_its_files_still_starts(slots, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        patched.setattr(metrics, "_slots", slots)
        metrics._start_worker()
    assert "No space left on device" in caplog.text
    assert slots.number == 0
    assert in_a_child(slots, lambda mine: mine.number) == "1"


def test_a_service_removes_what_a_killed_one_left_behind(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED_SERVICE, str(tmp_path)], cwd=ROOT, check=False)
    (left,) = tmp_path.glob(f"{RUNNING_PREFIX}*")
    first, second = WorkerSlots(tmp_path), WorkerSlots(tmp_path)
    assert not left.exists()
    assert first.folder.exists()
    assert second.folder.exists()
