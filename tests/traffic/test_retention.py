"""Old network events are removed as a whole partition (PostgreSQL) or in batches (SQLite); sums stay."""

import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import psycopg
import pytest
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from policystore.db import transactions
from policystore.detections import actions
from policystore.operations import health, worker
from policystore.runners.models import JobRun
from policystore.traffic import retention, store
from policystore.traffic.event_parser import parse
from policystore.traffic.models import JobEndpoint, NetworkEvent
from tests import factories

DAY = timedelta(days=1)
# SQLite has no partitions.
on_postgresql = pytest.mark.production


@pytest.fixture
def organization(db):
    return factories.organization("octo-org")


def job_run(organization, correlation_id="a", **values):
    said = {"repository": "hello-world", "workflow": "ci.yml", "job": "build", "run_id": "1", **values}
    first_seen_at = said.pop("first_seen_at", timezone.now())
    return JobRun.objects.create(
        verified_by="key", organization=organization, correlation_id=correlation_id, first_seen_at=first_seen_at, **said
    )


def observe(run, numbers, *, at=None):
    """Store a call with each of these numbers, as one delivery that arrives at this time."""
    seen = [
        parse(
            "networkconnection", {"domainName": "github.com.", "port": "443", "status": "Allowed", "delivery": str(n)}
        )
        for n in numbers
    ]
    return actions.observe(run=run, events=seen, received_at=at)


def partition_of(event):
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM traffic_networkevent WHERE id = %s", [event.pk])
        return cursor.fetchone()[0]


def test_old_events_are_removed_and_what_was_counted_stays(organization):
    observe(job_run(organization, "old"), range(7), at=timezone.now() - 40 * DAY)
    observe(job_run(organization, "new"), range(3))
    retention.create_partitions(retention_days=30, days_back=50)
    assert retention.prune_events(days=30) is False
    assert NetworkEvent.objects.count() == 3
    assert JobEndpoint.objects.get().calls == 10


def test_pruning_stops_when_its_time_is_over_and_the_worker_goes_on_right_away(organization, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(transactions, "TURN_SECONDS", 0)
    observe(job_run(organization), range(7), at=timezone.now() - 40 * DAY)
    monkeypatch.setattr(worker, "close_old_connections", lambda: None)
    monkeypatch.setattr(retention, "prune_events", partial(retention.prune_events, seconds=0))
    [job] = [job for job in worker.jobs() if job.name == "prune old network events"]
    left = []
    for _ in range(5):
        worker.run_due([job], now=1000)
        left.append(NetworkEvent.objects.count())
    assert left == [5, 3, 1, 0, 0]
    assert job.due == 1300


def test_the_command_removes_exactly_what_is_older(organization, capsys):
    now = timezone.now()
    for days in (50, 31, 29, 0):
        observe(job_run(organization, f"{days} days ago"), [1, 2], at=now - days * DAY)
    call_command("prune", "--days", "30")
    assert capsys.readouterr().out == "Deleted 4 network events.\n"
    assert sorted(set(NetworkEvent.objects.values_list("job_run__correlation_id", flat=True))) == [
        "0 days ago",
        "29 days ago",
    ]
    call_command("prune", "--days", "0")
    assert not NetworkEvent.objects.exists()


def test_the_lag_of_retention_is_a_metric_and_a_finding(organization):
    assert retention.lag(days=30) == timedelta(0)
    assert not health.retention_keeps_up().message.startswith("Network events have been")
    observe(job_run(organization), [1], at=timezone.now() - 30 * DAY - timedelta(hours=5))
    assert timedelta(hours=5) <= retention.lag(days=30) < timedelta(hours=5, minutes=1)
    finding = health.retention_keeps_up()
    assert finding.message.startswith("Network events have been due to be removed for 5 h")
    # A load balancer must not take the store away for it.
    assert not finding.is_problem
    read_values = {name: value for (name, _), value in health._read().items()}
    assert 5 * 3600 <= read_values["policystore_retention_lag_seconds"] < 5 * 3600 + 60


def test_an_event_that_is_sent_again_on_another_day_is_stored_once(organization):
    now = timezone.now()
    run = job_run(organization, first_seen_at=now - 3 * DAY)
    assert observe(run, range(5), at=now - 2 * DAY).stored == 5
    again = observe(run, range(3, 8), at=now)
    assert (again.stored, again.repeated) == (3, 2)
    assert NetworkEvent.objects.count() == 8
    assert JobEndpoint.objects.get().calls == 8


def test_deleting_a_job_run_or_an_organization_deletes_their_events_in_every_partition(organization):
    now = timezone.now()
    for name in ("one", "other"):
        observe(job_run(organization, name), [1], at=now - 3 * DAY)
        observe(JobRun.objects.get(correlation_id=name), [2], at=now)
    JobRun.objects.get(correlation_id="one").delete()
    assert set(NetworkEvent.objects.values_list("job_run__correlation_id", flat=True)) == {"other"}
    organization.delete()
    assert not NetworkEvent.objects.exists()


@on_postgresql
def test_an_event_is_stored_in_the_partition_of_the_day_it_arrives(organization):
    today = timezone.now().date()
    observe(job_run(organization), [1])
    assert partition_of(NetworkEvent.objects.get()) == retention.Partition.of_days(today, today + DAY).name


@on_postgresql
def test_partitions_are_created_ahead_and_old_ones_are_dropped_whole(organization):
    now = timezone.now()
    retention.create_partitions(retention_days=30, days_back=33)
    days = [partition.start for partition in retention.existing_partitions()]
    first = now.date() - 33 * DAY
    assert days == [first + number * DAY for number in range(33 + retention.DAYS_AHEAD)]
    observe(job_run(organization), range(20), at=now - 31 * DAY - timedelta(hours=1))
    retention.prune_events(days=30)
    # Every event of a dropped partition is older than the retention; the newest of the kept ones is not.
    assert retention.existing_partitions()[0].ends_at > now - 30 * DAY
    assert retention.existing_partitions()[0].start == now.date() - 30 * DAY
    assert not NetworkEvent.objects.exists()
    assert retention.create_partitions(retention_days=30) == 0


@on_postgresql
def test_a_long_retention_gets_wider_partitions(organization):
    retention.create_partitions(retention_days=400, days_back=400)
    existing = retention.existing_partitions()
    assert len(existing) < 80
    assert {partition.end - partition.start for partition in existing} <= {number * DAY for number in range(1, 7)}
    assert all(before.end == after.start for before, after in pairwise(existing))


@on_postgresql
def test_events_that_no_partition_covers_are_kept_and_pruned_too(organization):
    now = timezone.now()
    run = job_run(organization, first_seen_at=now - 60 * DAY)
    assert observe(run, range(3), at=now - 50 * DAY).stored == 3
    assert observe(run, range(3), at=now - 50 * DAY).repeated == 3
    assert {partition_of(event) for event in NetworkEvent.objects.all()} == {retention.DEFAULT}
    # Their day cannot become a partition; the others can.
    assert retention.create_partitions(retention_days=30, days_back=51) == 50
    assert NetworkEvent.objects.count() == 3
    retention.prune_events(days=30)
    assert not NetworkEvent.objects.exists()


@on_postgresql
def test_only_partitions_of_the_time_of_a_job_run_are_searched_for_repeats(organization):
    retention.create_partitions(retention_days=30, days_back=30)
    run = job_run(organization)
    delivery_at = timezone.now()
    is_stored, parameters = store._is_stored(run, delivery_at)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN SELECT 1 FROM (SELECT 'x' AS digest) sent WHERE NOT {is_stored}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    searched = set(re.findall(r"traffic_networkevent_\w*\d{8}_\d{8}\b|traffic_networkevent_default", plan))
    searched = {name for name in searched if not name.endswith("_idx")}
    day = datetime.combine(delivery_at.date(), datetime.min.time(), UTC)
    assert retention.DEFAULT not in searched
    assert 1 <= len(searched) <= (3 if delivery_at + timedelta(hours=1) >= day + DAY else 2), plan


@on_postgresql
def test_the_same_time_of_arrival_cannot_store_an_event_twice(organization):
    run = job_run(organization)
    observe(run, [1])
    [event] = NetworkEvent.objects.all()
    event.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        event.save(force_insert=True)


@pytest.fixture
def _past_partitions(transactional_db):
    retention.create_partitions(retention_days=30, days_back=33)
    yield
    for partition in retention.existing_partitions():
        if partition.ends_at <= timezone.now():
            retention.drop_partition(partition)


@on_postgresql
@pytest.mark.usefixtures("_past_partitions")
def test_a_partition_that_is_in_use_is_dropped_later(monkeypatch):
    monkeypatch.setattr(retention, "LOCK_TIMEOUT", "100ms")
    first = retention.existing_partitions()[0]
    with in_use_elsewhere():
        with pytest.raises(OperationalError):
            retention.prune_events(days=30)
        assert retention.existing_partitions()[0] == first
    retention.prune_events(days=30)
    assert retention.existing_partitions()[0].ends_at > timezone.now() - 30 * DAY


@contextmanager
def in_use_elsewhere():
    """Another connection has read the table and has not ended its transaction, as during a backup."""
    with psycopg.connect(**connection_options()) as other:
        other.execute("SELECT count(*) FROM traffic_networkevent")
        yield


def connection_options():
    given = connection.get_connection_params()
    return {name: given[name] for name in ("dbname", "user", "password", "host", "port") if name in given}
