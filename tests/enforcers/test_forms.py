"""The text of each form, as its enforcer reads it."""

from __future__ import annotations

import json

import pytest
import yaml

from policystore.enforcers.policy import EffectivePolicy
from policystore.enforcers.registry import ENFORCERS

POLICY = EffectivePolicy(
    "block", ("pkg.octo.example:443", "archive.octo.example:80", "archive.octo.example:443", "*.example.net:443")
)


def text(key, policy=POLICY):
    return ENFORCERS[key].compiled(policy).text


def test_cargowall_gets_rules_in_its_own_words():
    tcp = "CARGO_WALL_PROTOCOL_TCP"
    host, allow, deny = "CARGO_WALL_RULE_TYPE_HOSTNAME", "CARGO_WALL_ACTION_TYPE_ALLOW", "CARGO_WALL_ACTION_TYPE_DENY"
    https = [{"protocol": tcp, "port": 443}]
    assert json.loads(text("cargowall")) == {
        "mode": "CARGO_WALL_MODE_ENFORCE",
        "defaultAction": deny,
        "rules": [
            {"type": host, "value": "pkg.octo.example", "action": allow, "ports": https},
            {"type": host, "value": "**.pkg.octo.example", "action": deny},
            {
                "type": host,
                "value": "archive.octo.example",
                "action": allow,
                "ports": [{"protocol": tcp, "port": 80}, *https],
            },
            {"type": host, "value": "**.archive.octo.example", "action": deny},
            {"type": host, "value": "**.example.net", "action": allow, "ports": https},
        ],
    }


def test_cargowall_gets_addresses_as_networks_and_locks_sudo():
    found = json.loads(text("cargowall", EffectivePolicy("audit", ("198.51.100.7:443",), disable_sudo=True)))
    assert found["mode"] == "CARGO_WALL_MODE_AUDIT"
    assert found["sudoLockdown"] == {"enabled": True}
    assert found["rules"][0]["type"] == "CARGO_WALL_RULE_TYPE_CIDR"
    assert found["rules"][0]["value"] == "198.51.100.7/32"


@pytest.mark.parametrize(
    ("wildcards", "denies"),
    [
        (["*.example.com:443"], False),
        (["*.example.com:80"], True),
        (["*.com:443"], False),
        (["*:443"], False),
        (["*.example.com:443", "*.a.example.com:80"], True),
        ([], True),
    ],
)
def test_names_below_a_host_are_denied_unless_wildcards_list_them_alike(wildcards, denies):
    rules = json.loads(text("cargowall", EffectivePolicy("block", ("example.com:443", *wildcards))))["rules"]
    assert ("**.example.com" in [rule["value"] for rule in rules if "DENY" in rule["action"]]) is denies


def test_the_step_of_harden_runner():
    (step,) = yaml.safe_load(text("harden-runner", EffectivePolicy("audit", ("a.example:443",), disable_sudo=True)))
    assert step["with"]["egress-policy"] == "audit"
    assert step["with"]["disable-sudo"] is True
    assert step["with"]["allowed-endpoints"].split() == ["a.example:443"]


def test_githubs_file_lists_hosts():
    assert yaml.safe_load(text("github")) == {"mode": "enforce", "allow": ["pkg.octo.example", "archive.octo.example"]}
    assert yaml.safe_load(text("github", EffectivePolicy("audit"))) == {"mode": "log", "allow": []}


def test_the_step_of_bullfrog():
    (step,) = yaml.safe_load(text("bullfrog", EffectivePolicy("block", ("a.example:443", "*.b.example:80"))))
    assert step["with"]["allowed-domains"].splitlines() == ["a.example", "*.b.example"]
    assert step["with"]["egress-policy"] == "block"


def test_cilium_gets_a_rule_for_each_combination_of_ports():
    rules = yaml.safe_load(text("cilium"))["spec"]["egress"]
    https = [{"ports": [{"port": "443", "protocol": "TCP"}]}]
    assert {
        "toFQDNs": [{"matchName": "pkg.octo.example"}, {"matchPattern": "**.example.net"}],
        "toPorts": https,
    } in rules
    both = [{"ports": [{"port": "80", "protocol": "TCP"}, {"port": "443", "protocol": "TCP"}]}]
    assert {"toFQDNs": [{"matchName": "archive.octo.example"}], "toPorts": both} in rules


def test_cilium_gets_at_most_forty_ports_in_a_list():
    endpoints = tuple(f"a.example:{port}" for port in range(1, 101))
    (_, rule) = yaml.safe_load(text("cilium", EffectivePolicy("block", endpoints)))["spec"]["egress"]
    assert [len(listed["ports"]) for listed in rule["toPorts"]] == [40, 40, 20]


@pytest.mark.parametrize(("key", "field"), [("bullfrog", "allowed-domains"), ("cilium", "toFQDNs")])
def test_a_host_that_a_wildcard_lists_without_its_star_is_listed_by_name(key, field):
    form = text(key, EffectivePolicy("block", ("s3.*.amazonaws.com:443",)))
    assert "s3.amazonaws.com" in form[form.index(field) :]


@pytest.mark.parametrize("enforcer", ENFORCERS.values(), ids=ENFORCERS)
def test_an_empty_policy_has_a_form_everywhere(enforcer):
    assert enforcer.compiled(EffectivePolicy("block")).text.endswith("\n")
