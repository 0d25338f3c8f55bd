"""Policies made up for comparing enforcers: few domains, so that their endpoints get in each other's way."""

from __future__ import annotations

import random

from policystore.enforcers.policy import EffectivePolicy

HOSTS = (
    *(
        "a.com",
        "b.a.com",
        "c.b.a.com",
        "b.com",
        "*.a.com",
        "*.b.a.com",
        "*.b.com",
        "s3.*.a.com",
        "s3.a.com",
        "x*.a.com",
    ),
    *(
        "x*.a.com",
        "github.com",
        "*.github.com",
        "api.github.com",
        "codeload.github.com",
        "*.actions.githubusercontent.com",
    ),
    *("*.blob.core.windows.net", "a.blob.core.windows.net", "blob.core.windows.net", "under_score.a.com", "a.b.*.b.c"),
    *("*.githubusercontent.com", "*.com", "*", "*.internal", "*.x.internal", "a.*.b.com", "git*.com"),
)
PORTS = (443, 443, 443, 80, 8443)


def policy(random_: random.Random) -> EffectivePolicy:
    """A policy of up to eight endpoints."""
    endpoints = {f"{random_.choice(HOSTS)}:{random_.choice(PORTS)}" for _ in range(random_.randrange(9))}
    shuffled = random_.sample(sorted(endpoints), len(endpoints))
    return EffectivePolicy("block", tuple(shuffled), disable_telemetry=random_.random() < 0.5)
