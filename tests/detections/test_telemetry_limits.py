"""Limits of telemetry: what one request may hold, and how many a job and an address may send."""

import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from policystore.runners import rate_limit
from policystore.runners.models import RateLimitUse
from policystore.runners.rate_limit import RateLimit
from policystore.telemetry import limits
from policystore.telemetry.limits import Rate
from policystore.traffic.models import NetworkEvent
from policystore.web import json_api
from tests import factories
from tests.runners.asking import ask
from tests.traffic.test_ingest import JOBS, call, job_run, key, send

FOUR_MIB = 4 * 1024 * 1024


@pytest.fixture
def organization(db):
    return factories.organization("octo-org")


def filled(before, repeated, after):
    """Text of nearly 4 MiB."""
    return before + repeated * ((FOUR_MIB - len(before) - len(after)) // len(repeated)) + after


EXPENSIVE = {
    "many small events": filled(b"[", b"{},", b"{}]"),
    "many objects in one event": filled(b'[{"a":[', b"{},", b"{}]}]"),
    "many numbers in one event": filled(b'[{"a":[', b"1,", b"1]}]"),
    "many texts in one event": filled(b'[{"a":[', b'"",', b'""]}]'),
    "many keys in one event": filled(b"[{", b'"a":0,', b'"a":0}]'),
    "depth": filled(b"", b"[", b""),
    "one long text": filled(b'["', b"a", b'"]'),
    "quotes in a text": filled(b'["', b'\\"', b'"]'),
    "backslashes in a text": filled(b'["', b"\\\\", b'"]'),
    "one long number": filled(b"[0.", b"1", b"]"),
    "spaces": filled(b"[", b" ", b"]"),
}


@pytest.mark.parametrize("text", EXPENSIVE.values(), ids=EXPENSIVE)
def test_a_batch_of_4_mib_costs_little_whatever_it_holds(organization, text):
    job_run(organization)
    headers, body = {**key(), "content-encoding": "gzip"}, gzip.compress(text)
    spent = []
    for _ in range(3):
        began = time.process_time()
        answer = ask("POST", f"{JOBS}/a/events", headers, body)
        spent.append(time.process_time() - began)
    assert answer.status in (200, 400, 413)
    # Parsing such a batch takes more than a second; 0.05 s were measured.
    assert min(spent) < 0.4
    assert not NetworkEvent.objects.exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"a":' * 16 + b"1" + b"}" * 16, None),
        (b'{"a":' * 17 + b"1" + b"}" * 17, json_api.TooComplex),
        (b'["' + b"[" * 100 + b'"]', None),
        (b'["\\"' + b"[" * 100 + b'"]', None),
        (b'["\\\\",' + b"[" * 100 + b"]" * 101, json_api.TooComplex),
        (b"[" + b"[1,2,3]," * 4 + b"1]", None),
        (b"[1,2,3,4,5]", None),
        (b"[1,2,3,4,5,6]", json_api.TooManyItems),
        (b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', None),
        (b'["a,b,c,d,e,f,g"]', None),
        (b"[" + b"[]," * json_api.MAX_SEPARATORS + b"[]]", json_api.TooComplex),
        (b"[" + b'"",' * json_api.MAX_STRINGS + b'""]', json_api.TooComplex),
        (b"", None),
        (b"]]]]", None),
    ],
)
def test_depth_items_and_values_are_counted_outside_of_strings(text, error):
    if error is None:
        json_api.check_json(text, max_items=5)
    else:
        with pytest.raises(error):
            json_api.check_json(text, max_items=5)


def test_a_full_batch_of_events_with_many_processes_is_taken(organization):
    job_run(organization)
    tool = None
    for _ in range(13):
        tool = {"name": "bash", "sha256": "a" * 64, "parent": tool}
    values = [call("github.com", number=n, n=n, tool=tool, step="Build", reason="x") for n in range(1000)]
    headers = {**key(), "content-encoding": "gzip"}
    assert send(gzip.compress(json.dumps(values).encode()), headers=headers).json()["stored"] == 1000


@pytest.fixture
def small_budgets(monkeypatch):
    """Two batches and three posts a minute for a job, three of either for an address."""
    batches = Rate(RateLimit("job-batches", 2, part=1), RateLimit("address-batches", 3, part=1))
    posts = Rate(RateLimit("job-posts", 3, part=2), RateLimit("address-posts", 3, part=2))
    monkeypatch.setattr("policystore.telemetry.ingest.BATCHES", batches)
    monkeypatch.setattr("policystore.telemetry.ingest.POSTS", posts)
    # Windows are minutes of the clock; a test must not run into the next one.
    monkeypatch.setattr(rate_limit, "time", type("Clock", (), {"time": staticmethod(lambda: 1_000_000_000.0)}))


@pytest.mark.usefixtures("small_budgets")
def test_a_job_beyond_its_budget_is_asked_to_wait_and_others_are_not(organization):
    for correlation_id in ("a", "b"):
        job_run(organization, correlation_id, f"{ord(correlation_id)}")
    assert [send([call("github.com", n=n)]).status for n in range(4)] == [200, 200, 429, 429]
    refused = send([call("github.com", n=9)])
    assert refused.json()["error"] == "too_many_requests"
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert [send([call("github.com", n=n)], "b").status for n in range(3)] == [200, 200, 429]
    post = {"domainName": "github.com", "ipAddress": "192.0.2.1", "port": "443"}
    assert [ask("POST", f"{JOBS}/a/networkconnection", key(), post).status for _ in range(4)] == [200, 200, 200, 429]
    assert NetworkEvent.objects.filter(job_run__correlation_id="a").count() == 3


@pytest.mark.usefixtures("small_budgets")
@pytest.mark.parametrize("verified_by", ["", "cluster"])
@pytest.mark.parametrize("addresses", [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::2:3")])
def test_jobs_without_a_key_share_the_budget_of_their_address(organization, settings, addresses, verified_by):
    settings.TRUST_FORWARDED_HEADERS = True
    answers = []
    for number in range(4):
        job_run(organization, f"job-{number}", f"{number}", verified_by=verified_by)
        headers = {**key(f"job-{number}"), "x-forwarded-for": addresses[number % 2]}
        answers.append(send([call("github.com")], f"job-{number}", headers).status)
    assert answers == [200, 200, 200, 429]
    elsewhere = {**key("job-3"), "x-forwarded-for": "198.51.100.1"}
    assert send([call("github.com")], "job-3", elsewhere).status == 200


@pytest.mark.usefixtures("small_budgets")
def test_a_fleet_behind_one_address_is_not_limited_by_it(organization):
    vm = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
    for number in range(5):
        job_run(organization, f"job-{number}", f"{number}")
        assert send([call("github.com")], f"job-{number}").status == 200
        assert send([call("github.com")], f"sent-by-a-system-{number}", vm).status == 200


@pytest.mark.usefixtures("small_budgets")
def test_a_request_beyond_the_budget_is_not_read(organization, monkeypatch):
    job_run(organization)
    for _ in range(2):
        send([])
    monkeypatch.setattr("policystore.telemetry.ingest.read_body", lambda request: pytest.fail("it was read"))
    assert send([]).status == 429


def test_processes_share_a_budget(organization):
    limit = RateLimit("x", 10, part=3)
    taken = 0
    for _ in range(8):
        # Each claims its part, as a process that has just started does.
        rate_limit.clear()
        taken += rate_limit.spend(limit, "job", now=60.0) == 0
    assert taken == 4
    assert rate_limit.spend(limit, "job", now=60.0) == 60
    assert rate_limit.spend(limit, "other", now=60.0) == 0
    assert rate_limit.spend(limit, "job", now=120.0) == 0


def test_a_window_that_a_slower_clock_still_counts_in_is_not_started_again(organization):
    limit = RateLimit("x", 2, part=1)
    assert [rate_limit.spend(limit, now=at) for at in (59.0, 60.0, 60.0)] == [0, 0, 0]
    rate_limit.clear()
    assert rate_limit.spend(limit, now=59.0) > 0


def test_more_units_than_are_left_are_refused_and_not_spent(organization):
    limit = RateLimit("x", 10, part=4)
    assert rate_limit.spend(limit, units=8, now=0.0) == 0
    assert rate_limit.spend(limit, units=3, now=1.0) > 0
    assert rate_limit.spend(limit, units=2, now=2.0) == 0
    assert rate_limit.spend(limit, now=3.0) > 0


def test_a_slow_claim_holds_up_only_calls_that_spend_of_the_same_one(organization, monkeypatch):
    limit, waiting, answered = RateLimit("x", 10, part=1), threading.Event(), threading.Event()

    def extend(claim, name, rate_limit, units):
        if not waiting.is_set():
            waiting.set()
            assert answered.wait(10)
        claim.left += units

    monkeypatch.setattr(rate_limit, "_extend", extend)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(rate_limit.spend, limit, "slow", now=60.0)
        assert waiting.wait(10)
        try:
            assert pool.submit(rate_limit.spend, limit, "other", now=60.0).result(timeout=5) == 0
        finally:
            answered.set()
        assert slow.result(timeout=5) == 0


def test_counts_of_past_windows_are_deleted(organization):
    for number in range(3):
        rate_limit.spend(RateLimit("x", 10, part=1), number, now=60.0 * number)
    assert rate_limit.prune(now=121.0) == 2
    assert RateLimitUse.objects.count() == 1


def test_the_limits_are_those_that_are_documented():
    rates = limits.BATCHES, limits.POSTS
    assert [(rate.of_job.limit, rate.of_address.limit) for rate in rates] == [(20, 600), (3000, 30_000)]
    assert (limits.MAX_EVENTS, limits.MAX_UNPACKED_BYTES) == (1000, FOUR_MIB)
