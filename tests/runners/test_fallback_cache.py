"""The fallback cache: stored policies are shared between answers, within limits of answers and bytes."""

import json
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from policystore.accounts.models import Actor
from policystore.policies import break_glass
from policystore.policies.core import attachments
from policystore.policy_language.exceptions import OpenException, encode
from policystore.policy_language.scopes import Scope
from policystore.runners import protocol
from policystore.runners.fetch.fallback_cache import FallbackCache
from policystore.runners.fetch.query import StoredPolicy
from policystore.web.json_api import Reply
from tests import factories
from tests.runners.asking import ask

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ENDPOINTS = [f"service-{number}.example.com:443" for number in range(500)]
EXCEPTED = [OpenException(NOW + timedelta(hours=hour), f"extra-{hour}.example.com:443") for hour in range(1, 11)]
MIB = 1024 * 1024


def reply_of(mode, reply):
    return Reply(status=200, body=f"{mode} {reply}".encode())


def make_cache(**bounds):
    return FallbackCache(**{"max_answers": 1000, "max_bytes": MIB, "reply_of": reply_of, **bounds})


def stored(name="", endpoints=ENDPOINTS, open_exceptions=EXCEPTED):
    reply = {"egress_policy": "block", "allowed_endpoints": endpoints, "policy_name": name}
    return StoredPolicy("block", json.dumps(reply, separators=(",", ":")), encode(open_exceptions))


def kept(cache, names):
    return [name for name in names if cache.reply((name, "octo-org")).status == 200]


def test_of_one_policy_with_many_exceptions_a_thousand_scopes_take_little():
    cache = make_cache(max_answers=10_000, max_bytes=64 * MIB)
    tracemalloc.start()
    for number in range(1000):
        # Each from a row of its own, as the database gives it.
        cache.keep((f"workflow:octo-org/hello-world/ci-{number}.yml", "octo-org"), stored())
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept(cache, [f"workflow:octo-org/hello-world/ci-{number}.yml" for number in range(1000)])) == 1000
    assert taken < 0.5 * MIB


def test_the_bytes_are_bounded_whatever_the_policies_are_like():
    cache = make_cache(max_answers=20_000, max_bytes=4 * MIB)
    names = [f"{number}-{'long' * 50}" for number in range(1000)]
    tracemalloc.start()
    for name in names:
        cache.keep((name, "octo-org"), stored(name))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found = kept(cache, names)
    assert 100 < len(found) < 400
    assert found == names[-len(found) :]
    assert 2 * MIB < taken < 4.4 * MIB


def test_the_bytes_of_small_answers_are_bounded_too():
    cache = make_cache(max_answers=100_000, max_bytes=MIB)
    tracemalloc.start()
    for number in range(10_000):
        cache.keep((str(number), "octo-org"), stored(str(number), endpoints=[], open_exceptions=[]))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 * MIB < taken < 1.2 * MIB


def test_the_number_of_answers_is_bounded_and_the_least_recently_given_is_dropped_first():
    cache = make_cache(max_answers=2)
    for name in ("a", "b", "a", "c"):
        cache.keep((name, "octo-org"), stored())
    assert kept(cache, "abc") == ["a", "c"]


def test_an_answer_larger_than_the_cache_is_not_kept():
    cache = make_cache(max_bytes=10_000)
    cache.keep(("a", "octo-org"), stored())
    assert kept(cache, "a") == []


def test_dropped_and_replaced_answers_free_their_bytes():
    cache = make_cache(max_bytes=30_000)
    for number in range(100):
        cache.keep(("a", "octo-org"), stored(str(number)))
        cache.keep(("b", "octo-org"), stored("b", endpoints=[]))
        cache.drop(("b", "octo-org"))
    cache.keep(("b", "octo-org"), stored("b", endpoints=[]))
    assert kept(cache, "ab") == ["a", "b"]
    cache.clear()
    assert kept(cache, "ab") == []


def test_a_remembered_answer_follows_the_time_as_the_database_would(monkeypatch):
    cache = make_cache()
    cache.keep(("a", "octo-org"), stored(endpoints=[])._replace(break_glass_until=NOW + timedelta(minutes=90)))

    def at(**later):
        monkeypatch.setattr(timezone, "now", lambda: NOW + timedelta(**later))
        mode, _, reply = cache.reply(("a", "octo-org")).body.decode().partition(" ")
        assert json.loads(reply)["egress_policy"] == mode
        return mode, len(json.loads(reply)["allowed_endpoints"])

    found = [at(), at(minutes=60), at(minutes=90), at(minutes=120), at(hours=10)]
    assert found == [("audit", 10), ("audit", 9), ("block", 9), ("block", 8), ("block", 0)]


def test_threads_can_keep_and_drop_concurrently():
    cache, failed = make_cache(max_answers=3), []

    def work(number):
        try:
            for turn in range(2000):
                cache.keep((str((number + turn) % 7), "octo-org"), stored(str(turn % 5), endpoints=[]))
                cache.drop((str(turn % 7), "octo-org"))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for name in "0123456":
        cache.drop((name, "octo-org"))
    cache.keep(("a", "octo-org"), stored())
    assert kept(cache, "a") == ["a"]


@pytest.mark.django_db
def test_whether_a_hook_should_wait_is_remembered_and_follows_the_break_glass(monkeypatch):
    octo, ann, scope = factories.organization("octo-org"), Actor("ann"), Scope.for_organization("octo-org")
    policy = factories.policy(octo, "ci", text="egress-policy: block\n")
    attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=ann)
    ends = break_glass.start(organization=octo, scope=scope, hours=1, reason="x", by=ann).ends_at
    protocol.clear()
    target = "/v1/github/octo-org/hello-world/actions/policies/workflow-check"
    assert ask("GET", target).json() == {"has_policy": True, "should_sleep": False}

    def away(*_, **__):
        raise OperationalError("away")

    monkeypatch.setattr(protocol, "policy_served_to", away)
    assert ask("GET", target).json() == {"has_policy": True, "should_sleep": False}
    monkeypatch.setattr(timezone, "now", lambda: ends)
    during = ask("GET", target)
    assert during.json() == {"has_policy": True, "should_sleep": True}
    assert during.headers["policy-store-answer"] == "remembered"
