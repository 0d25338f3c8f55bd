"""What the action makes of its step's inputs and of the store's answer."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policystore.policy_language.action_inputs import Inputs, merge

REPLY = {
    "policy_name": "ci",
    "allowed_endpoints": ["github.com:443", "ghcr.io:443"],
    "egress_policy": "block",
    "disable_sudo": True,
    "disable_sudo_and_containers": False,
    "disable_file_monitoring": True,
    "disable_telemetry": True,
}
AUDIT = {**REPLY, "egress_policy": "audit", "disable_sudo": False, "disable_file_monitoring": False}
STORE = Inputs(use_policy_store=True)
NAMED = Inputs(policy="ci")

# Inputs, the store's reply (None: 404), and then source, mode, endpoints, disable_sudo, disable_file_monitoring.
CASES = {
    "the store's answer holds where the step says nothing": (
        STORE,
        REPLY,
        ("policy_store", "block", ["github.com:443", "ghcr.io:443"], True, True),
    ),
    "the step's endpoints replace the store's": (
        replace(STORE, allowed_endpoints="quay.io:443  example.com"),
        REPLY,
        ("policy_store", "block", ["quay.io:443", "example.com"], True, True),
    ),
    "the store's mode beats the step's block": (
        replace(STORE, egress_policy="block"),
        AUDIT,
        ("policy_store", "audit", ["github.com:443", "ghcr.io:443"], False, False),
    ),
    "the store's mode beats the step's audit": (
        replace(STORE, egress_policy="audit"),
        REPLY,
        ("policy_store", "block", ["github.com:443", "ghcr.io:443"], True, True),
    ),
    "the store's switches beat the step's, also where they are off": (
        replace(STORE, disable_sudo=True, disable_file_monitoring=True),
        AUDIT,
        ("policy_store", "audit", ["github.com:443", "ghcr.io:443"], False, False),
    ),
    "no policy is audit even where the step says block": (
        replace(STORE, egress_policy="block", allowed_endpoints="quay.io:443", disable_sudo=True),
        None,
        ("policy_store", "audit", ["quay.io:443"], True, False),
    ),
    "a policy that is named is merged alike": (
        NAMED,
        REPLY,
        ("policy", "block", ["github.com:443", "ghcr.io:443"], True, True),
    ),
    "a named policy that does not exist leaves the step in block with nothing allowed": (
        NAMED,
        None,
        ("policy", "block", [], False, False),
    ),
    "use-policy-store beats policy": (
        replace(STORE, policy="other"),
        REPLY,
        ("policy_store", "block", ["github.com:443", "ghcr.io:443"], True, True),
    ),
    "a step that asks nobody keeps its own inputs": (
        Inputs(egress_policy="audit", allowed_endpoints="quay.io:443"),
        REPLY,
        ("workflow", "audit", ["quay.io:443"], False, False),
    ),
    "a step that says nothing at all blocks everything": (Inputs(), None, ("workflow", "block", [], False, False)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_action_merges_field_by_field(case):
    inputs, reply, expected = CASES[case]
    found = merge(inputs, reply)
    told = (
        found.source,
        found.egress_policy,
        list(found.allowed_endpoints),
        found.disable_sudo,
        found.disable_file_monitoring,
    )
    assert told == expected
    assert found.reasons


def test_the_action_ignores_the_stores_telemetry_and_says_so():
    found = merge(STORE, REPLY)
    assert found.disable_telemetry is False
    assert any("disable-telemetry" in reason for reason in found.reasons)
    assert not any(
        "disable-telemetry" in reason for reason in merge(replace(STORE, disable_telemetry=True), REPLY).reasons
    )


def test_each_switch_that_the_store_changes_is_told():
    reasons = " ".join(merge(replace(STORE, disable_sudo_and_containers=True), REPLY).reasons)
    assert "disable-sudo is true" in reasons
    assert "disable-sudo-and-containers is false" in reasons
    assert "disable-file-monitoring is true" in reasons


inputs = st.builds(
    Inputs,
    egress_policy=st.sampled_from(["audit", "block"]),
    allowed_endpoints=st.sampled_from(["", "quay.io:443", "a.example b.example:80"]),
    disable_sudo=st.booleans(),
    disable_sudo_and_containers=st.booleans(),
    disable_file_monitoring=st.booleans(),
    disable_telemetry=st.booleans(),
    use_policy_store=st.booleans(),
    policy=st.sampled_from(["", "ci"]),
)


@given(inputs=inputs, reply=st.sampled_from([None, REPLY, AUDIT]))
def test_what_holds_is_always_what_one_of_both_sides_says(inputs, reply):
    found = asdict(merge(inputs, reply))
    for name in ("egress_policy", "disable_sudo", "disable_sudo_and_containers", "disable_file_monitoring"):
        said = [getattr(inputs, name)] + ([reply[name]] if reply else ["audit"])
        assert found[name] in said
    assert found["disable_telemetry"] == inputs.disable_telemetry
