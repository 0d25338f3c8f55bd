"""Counts risky endpoints anew after a release brought another list of risks."""

from __future__ import annotations

from django.db.models import Q

from policystore.policies.models import Policy
from policystore.policy_language import risks
from policystore.policy_language.document import read_reply

POLICIES_A_TURN = 2000


def recount() -> int:
    """Count those of as many policies as fit between two turns; returns how many. A policy saved meanwhile keeps the
    count that its own save made."""
    # Told in two ranges, which an index finds.
    others = Q(risk_basis__lt=risks.BASIS) | Q(risk_basis__gt=risks.BASIS)
    waiting = Policy.objects.filter(others).order_by("pk")
    found = list(waiting.values_list("pk", "version", "reply")[:POLICIES_A_TURN])
    for pk, version, reply in found:
        number = risks.count(read_reply(reply)["allowed_endpoints"])
        Policy.objects.filter(pk=pk, version=version).update(risk_count=number, risk_basis=risks.BASIS)
    return len(found)
