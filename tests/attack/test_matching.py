"""Random lists, patterns and hosts: the product's verdicts against the rule written out naively, and what is saved."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from policystore.accounts.models import SYSTEM
from policystore.policies import never_allow
from policystore.policies.errors import InvalidNeverAllow
from policystore.policies.models import Policy
from policystore.policy_language.document import check
from policystore.policy_language.endpoint_matcher import AllowList
from policystore.policy_language.never_allow import from_pairs
from tests import agent_rule
from tests.attack.bad_inputs.asking import STORE, world

SHORT, LONG = 1_500, 100_000
SAVED_SHORT, SAVED_LONG = 40, 1_000
LABELS = ["a", "b", "evil", "mirror", "s3", "github", "com", "internal", "octo", "amazonaws"]
TOPS = ["com", "org", "github.com", "octo.example", "actions.githubusercontent.com", "internal"]
PORTS = ["443", "443", "443", "80", "8080"]


def host(rng):
    return ".".join([*rng.choices(LABELS, k=rng.randint(0, 3)), rng.choice(TOPS)])


def pattern(rng):
    """A host with up to three stars: in place of a label, or inside one."""
    text = host(rng)
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        if rng.random() < 0.6:
            labels = text.split(".")
            labels[rng.randrange(len(labels))] = "*"
            text = ".".join(labels)
        else:
            at = rng.randint(0, len(text))
            text = text[:at] + "*" + text[at + rng.randint(0, 4) :]
    return text


def near(rng, entry):
    """A host that an entry may match: something in place of each star, or nothing."""
    written = entry.partition(":")[0]
    while "*" in written:
        written = written.replace("*", rng.choice(["", "a", "x.y", "evil", "b."]), 1)
    return written.strip(".") or "com"


def entries(rng, ports):
    made = []
    for _ in range(rng.randint(1, 5)):
        name = rng.choice([host, pattern, pattern])(rng) + rng.choice(["", "", "", "."])
        port = rng.choice(ports)
        made.append(f"{name}:{port}" if port else name)
    # Hosts that a wildcard of the list covers are where most rules meet.
    if rng.random() < 0.3:
        made.append(f"{near(rng, rng.choice(made))}:{rng.choice(PORTS)}")
    return made


def test_every_verdict_is_the_agents(full, tell):
    rng, told = random.Random(16), Counter()
    for _ in range(LONG if full else SHORT):
        listed = entries(rng, [*PORTS, "", "0", "70000", "-1", "abc"])
        called = rng.choice([host(rng), near(rng, rng.choice(listed)), near(rng, rng.choice(listed))])
        port, telemetry = rng.choice([443, 443, 80, 8080, 22]), rng.random() < 0.8
        expected = agent_rule.verdict(listed, called, port, telemetry)
        found = AllowList.from_entries(listed, telemetry=telemetry).verdict(called, port)
        assert found == expected, (listed, called, port, telemetry)
        told[expected] += 1
    assert min(told[verdict] for verdict in ("allowed", "blocked", "undetermined")) > told.total() / 100
    tell(
        f"matching: {told.total():,} pairs of a list and a host, 0 differences from the agent's rule"
        f" ({', '.join(f'{count:,} {verdict}' for verdict, count in sorted(told.items()))})"
    )


def means(never, name):
    """Whether a never-allow host or wildcard stands for a name with its final dot."""
    return name.endswith(never[1:] + ".") and name != never[1:] + "." if never[0] == "*" else name == never + "."


def should_stop(listed, never):
    """Whether an entry of a list allows some host that is never allowed, found by trying names."""
    for name, _ in agent_rule.parsed(listed):
        if "*" not in name:
            tries = [name]
        else:
            first, last = name.split("*")[:2]
            below = "q" + never[1:] + "." if never[0] == "*" else never + "."
            tries = [below, first + below, first + "q" + last, first + last]
            tries = [candidate for candidate in tries if agent_rule.matches(name, candidate)]
        if any(means(never, candidate) for candidate in tries):
            return True
    return False


def text_of(listed, mode):
    return f"egress-policy: {mode}\nallowed-endpoints:\n" + "".join(f"  - '{entry}'\n" for entry in listed)


def never_of(rng, listed):
    chosen = rng.choice([host(rng), near(rng, rng.choice(listed))])
    return f"*.{chosen}" if rng.random() < 0.3 else chosen


def test_no_policy_that_a_never_allow_host_should_stop_is_accepted(full, tell):
    rng, told = random.Random(17), Counter()
    for _ in range(LONG if full else SHORT):
        listed = entries(rng, PORTS)
        never = never_of(rng, listed)
        accepted = check(text_of(listed, "audit"), never_allow=from_pairs([(never, "reason")])).document is not None
        stop = should_stop(listed, never)
        assert not (accepted and stop), (listed, never)
        if not stop and not accepted:
            # Refused for another reason, or not at all without the never-allow host.
            assert check(text_of(listed, "audit")).document is None, (listed, never)
        told["stopped" if stop else "saved" if accepted else "refused anyway"] += 1
    assert min(told.values()) > told.total() / 100
    tell(
        f"never-allow: {told.total():,} policies checked, 0 accepted that a never-allow host should have stopped"
        f" ({told['stopped']:,} stopped, {told['saved']:,} accepted, {told['refused anyway']:,} refused anyway)"
    )


@pytest.mark.django_db
def test_no_policy_that_a_never_allow_host_should_stop_is_saved(full, tell):
    there, rng, told = world(), random.Random(18), Counter()
    for number in range(SAVED_LONG if full else SAVED_SHORT):
        listed = entries(rng, PORTS)
        never = never_of(rng, listed)
        try:
            entry, _ = never_allow.add(organization=there.organization, host=never, reason="exfiltration", by=SYSTEM)
        except InvalidNeverAllow:
            continue
        form = {"name": f"p{number}", "text": text_of(listed, rng.choice(["audit", "block"]))}
        answer = there.client.post(f"{STORE}new/", form)
        is_saved = Policy.objects.filter(name=form["name"]).exists()
        assert answer.status_code == (302 if is_saved else 422)
        assert not (is_saved and should_stop(listed, never)), (listed, never)
        told["saved" if is_saved else "refused"] += 1
        never_allow.RemoveNeverAllow(entry=entry).apply(by=SYSTEM)
    assert min(told["saved"], told["refused"]) > 0
    tell(f"never-allow: {told.total():,} policies posted, {told['saved']:,} saved, 0 that should have been stopped")
