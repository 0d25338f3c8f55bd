"""Each enforcer's form of a policy, compared with the policy, call by call: no difference may be silent."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from policystore.enforcers import cargowall, harden_runner
from policystore.enforcers.policy import EffectivePolicy
from policystore.enforcers.registry import ENFORCERS
from policystore.policy_language.endpoint_matcher import BUILT_IN_HOSTS, VENDOR_HOSTS, Verdict
from policystore.policy_language.endpoint_parser import cleaned
from tests.enforcers import calls, generated

REAL = json.loads((Path(__file__).parents[1] / "contract" / "real_policies.json").read_text())
GENERATED, CALLS = 500, 1000
SHORT = 10
NAMED_BY_AGENT = [entry.rpartition(":")[0] for entry in (*BUILT_IN_HOSTS, *VENDOR_HOSTS)]
SERVICES = (*cargowall.GITHUB_SERVICES, *cargowall.AZURE_SERVICES)


def policies(count):
    for real in REAL:
        yield EffectivePolicy(real["mode"], tuple(dict.fromkeys(map(cleaned, real["endpoints"]))))
    for seed in range(count):
        yield generated.policy(random.Random(seed))


def effect(policy, form, host, port):
    """How the enforcer differs from the policy on a call; empty if it does not."""
    verdict, is_listed = form.verdict(host, port), policy.lists(host, port)
    if verdict is Verdict.UNDETERMINED:
        return "undetermined"
    return "" if (verdict is Verdict.ALLOWED) == is_listed else "blocks" if is_listed else "opens"


@pytest.mark.parametrize("enforcer", ENFORCERS.values(), ids=ENFORCERS)
def test_no_difference_is_silent(enforcer, full, tell):
    random_, tried, found, silent = random.Random(1), 0, 0, []
    for policy in policies(GENERATED if full else GENERATED // SHORT):
        form = enforcer.compiled(policy)
        for host, port in calls.drawn(random_, policy.endpoints, CALLS if full else CALLS // SHORT):
            tried += 1
            if done := effect(policy, form, host, port):
                found += 1
                if not any(d.effect == done and d.covers(host, port) for d in form.differences):
                    silent.append((policy.endpoints, host, port, done))
    tell(f"{enforcer.name}: {tried:,} calls compared, {found:,} treated differently, {len(silent)} silently")
    assert not silent
    assert found


def test_cargowall_opens_nothing_that_harden_runner_blocks_but_what_it_says(full, tell):
    random_, wider = random.Random(2), []
    for policy in policies(GENERATED if full else GENERATED // SHORT):
        one, other = harden_runner.compiled(policy), cargowall.compiled(policy)
        by_itself = [d for d in other.differences if d.effect == "opens"]
        for host, port in calls.drawn(random_, policy.endpoints, CALLS if full else CALLS // SHORT):
            if host.endswith(".internal") or host in NAMED_BY_AGENT:
                # A wildcard may list these, but Harden-Runner resolves no such name, or has ports of its own for it.
                continue
            verdicts = one.verdict(host, port), other.verdict(host, port)
            is_service = port == 443 and any(f".{host}".endswith(f".{name}") for name in SERVICES)
            if is_service or any(d.covers(host, port) for d in by_itself):
                continue
            if verdicts == (Verdict.BLOCKED, Verdict.ALLOWED):
                wider.append((policy.endpoints, host, port))
    tell(f"CargoWall wider than Harden-Runner, but for what it opens by itself: {len(wider)}")
    assert not wider


@pytest.mark.parametrize(
    ("endpoints", "key", "host", "port", "expected"),
    [
        # A plain host is that host alone, though CargoWall's own rule would cover what is below it.
        (["pkg.example.com:443"], "cargowall", "pkg.example.com", 443, ""),
        (["pkg.example.com:443"], "cargowall", "a.pkg.example.com", 443, ""),
        # The wildcard lists them with another port than the host.
        (["example.com:80", "*.example.com:443"], "cargowall", "a.example.com", 443, "blocks"),
        (["example.com:443", "*.example.com:443"], "cargowall", "a.b.example.com", 443, ""),
        (["s3.*.amazonaws.com:443"], "cargowall", "s3.amazonaws.com", 443, ""),
        (["s3.*.amazonaws.com:443"], "cargowall", "s3.eu.amazonaws.com", 443, ""),
        (["s3.*:443"], "cargowall", "s3.eu.example.com", 443, ""),
        (["example.com:443", "*.example.com:443", "*.a.example.com:80"], "cargowall", "b.example.com", 443, "blocks"),
        (["example.com:443", "*.com:80"], "cargowall", "example.com", 80, "blocks"),
        (["*.github.com:80"], "cargowall", "a.github.com", 80, "blocks"),
        (["*.com:443", "*.example.com:80"], "cargowall", "a.example.com", 80, "blocks"),
        (["foo*.example.com:443"], "cargowall", "foot.example.com", 443, "blocks"),
        ([], "cargowall", "169.254.169.254", 80, "opens"),
        ([], "cargowall", "169.254.169.254", 443, ""),
        ([], "cargowall", "168.63.129.16", 32526, "opens"),
        (["198.51.100.7:443"], "cargowall", "198.51.100.7", 443, ""),
        ([], "cargowall", "any.blob.core.windows.net", 443, "opens"),
        (["github.com:443"], "cargowall", "codeload.github.com", 443, "opens"),
        (["github.com:443"], "cargowall", "gist.github.com", 443, ""),
        ([], "harden-runner", "10.0.0.1", 22, "opens"),
        ([], "harden-runner", "x.actions.githubusercontent.com", 443, "opens"),
        (["example.com:80", "*.com:443"], "harden-runner", "example.com", 443, "blocks"),
        (["*.com:80", "*.example.com:443"], "harden-runner", "a.example.com", 443, "undetermined"),
        (["example.com:443"], "github", "example.com", 22, "opens"),
        (["*.example.com:443"], "github", "a.example.com", 443, "blocks"),
        (["example.com:443"], "bullfrog", "example.com", 22, "opens"),
        (["under_score.example.com:443"], "bullfrog", "under_score.example.com", 443, "blocks"),
        (["s3.*.example.com:443"], "bullfrog", "s3.example.com", 443, ""),
        (["*.example.com:443"], "bullfrog", "a.b.example.com", 443, ""),
        (["*.example.com:443"], "cilium", "a.example.com", 443, ""),
        (["*.example.com:443"], "cilium", "a.b.example.com", 443, ""),
        (["s3.*.example.com:443"], "cilium", "s3.a.b.example.com", 443, "blocks"),
        (["s3.*.example.com:443"], "cilium", "s3.example.com", 443, ""),
        (["*:443"], "cilium", "a.b.example.com", 443, ""),
    ],
)
def test_how_an_enforcer_differs(endpoints, key, host, port, expected):
    policy = EffectivePolicy("block", tuple(endpoints))
    form = ENFORCERS[key].compiled(policy)
    assert effect(policy, form, host, port) == expected
    assert any(d.covers(host, port) and d.effect == expected for d in form.differences) is (expected != "")


def test_a_list_that_ends_enforcement_opens_everything():
    form = harden_runner.compiled(EffectivePolicy("block", ("localhost:443",)))
    assert form.verdict("evil.example", 443) is Verdict.ALLOWED
    assert {d.reason for d in form.differences} == {"localhost:443 makes the agent stop enforcing for the whole job."}


@pytest.mark.parametrize(
    "wildcard", ["*.w{}.example.com:443", "s{}.*.example.com:443", "x{}*.example.com:443"], ids=["usual", "mid", "part"]
)
def test_a_long_list_is_compiled_fast(wildcard, tell):
    endpoints = [f"h{number}.example.com:443" for number in range(1000)]
    policy = EffectivePolicy("block", (*endpoints, *(wildcard.format(number) for number in range(1000))))
    started = time.process_time()
    text = cargowall.document(policy)
    seconds = time.process_time() - started
    tell(f"CargoWall's form of 2,000 endpoints: {seconds * 1000:,.0f} ms")
    assert len(text) < cargowall.MAX_POLICY_BYTES
    assert seconds < 1
