"""The agent's rule for a call, as CLIENTS.md describes it: written out entry by entry, without the product's code."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

BUILT_IN = [
    "*.actions.githubusercontent.com:443",
    "codeload.github.com:443",
    "actions-results-receiver-production.githubapp.com:443",
    "productionresultssa*.blob.core.windows.net:443",
]
VENDOR = ["agent.api.stepsecurity.io:443", "prod.app-api.stepsecurity.io:443"]
OPEN = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "168.63.129.16/32", "169.254.169.254/32", "127.0.0.0/8"]


def parsed(entries):
    """Each entry as (name with its final dot, port), in order."""
    found = []
    for word in " ".join(entries).split(" "):
        if word:
            parts = word.split(":")
            port = 443 if len(parts) == 1 else int(parts[1]) if re.fullmatch(r"[+-]?[0-9]{1,18}", parts[1]) else 0
            found.append((parts[0] if parts[0].endswith(".") else parts[0] + ".", port))
    return found


def matches(pattern, name):
    """Whether a wildcard matches a name; both end in a dot."""
    pieces = pattern.split("*")
    return name.startswith(pieces[0]) and name.endswith(pieces[1])


def is_open(host):
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.version == 6 or any(address in ip_network(network) for network in OPEN)


def verdict(entries, host, port, telemetry=True):
    """The verdict: allowed, blocked or undetermined."""
    if not 0 < port < 65536:
        return "blocked"
    if is_open(host):
        return "allowed"
    listed = parsed([*entries, *BUILT_IN, *(VENDOR if telemetry else [])])
    name = host if host.endswith(".") else host + "."
    by_name = [listed_port for listed_name, listed_port in listed if listed_name == name and "*" not in listed_name]
    if by_name:
        return "allowed" if port in by_name else "blocked"
    if name.endswith(".internal."):
        return "blocked"
    first_port = {}
    for pattern, pattern_port in listed:
        if "*" in pattern and pattern not in first_port:
            first_port[pattern] = pattern_port
    ports = [first for pattern, first in first_port.items() if matches(pattern, name)]
    if port not in ports:
        return "blocked"
    return "allowed" if all(first == port for first in ports) else "undetermined"
