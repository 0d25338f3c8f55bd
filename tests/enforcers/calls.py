"""Calls drawn around a policy's endpoints, for comparing what an enforcer does with what the policy says."""

from __future__ import annotations

import random

from policystore.enforcers.cargowall import AZURE_SERVICES, GITHUB_SERVICES
from policystore.policy_language.endpoint_matcher import BUILT_IN, VENDOR_HOSTS

LABELS = ("a", "b", "x1", "deep.er", "www", "s3", "internal")
PORTS = (443, 443, 443, 80, 22, 8443)
ALWAYS = (
    *(entry.rpartition(":")[0] for entry in (*BUILT_IN, *VENDOR_HOSTS)),
    *GITHUB_SERVICES,
    *AZURE_SERVICES,
    *("169.254.169.254", "10.1.2.3", "8.8.8.8", "2001:db8::1", "example.org", "x.internal", "glb-a.github.com"),
)


def drawn(random_: random.Random, endpoints, count):
    """Pairs of host and port: half of them hosts of the policy, or near them."""
    hosts = [endpoint.rpartition(":")[0] for endpoint in endpoints]
    ports = [*PORTS, *(int(endpoint.rpartition(":")[2]) for endpoint in endpoints)]
    for _ in range(count):
        host = random_.choice(hosts) if hosts and random_.random() < 0.75 else random_.choice(ALWAYS)
        yield near(random_, host), random_.choice(ports)


def near(random_: random.Random, host):
    """The host, with its stars filled in, or one above, below or beside it."""
    while "*" in host:
        host = host.replace("*", random_.choice(LABELS), 1)
    change = random_.randrange(8)
    if change == 0:
        return f"{random_.choice(LABELS)}.{host}"
    if change == 1 and host.count(".") > 1:
        return host.partition(".")[2]
    if change == 2:
        return f"{random_.choice(LABELS)}{host}"
    if change == 3:
        return f"{random_.choice(LABELS)}.{host.partition('.')[2] or host}"
    return host
