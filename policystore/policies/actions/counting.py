"""Puts the counters of an organization together again, which triggers tell change by change."""

from __future__ import annotations

from django.db import transaction

from policystore.policies.models import PolicyCount

ROWS_A_TURN = 20_000
COUNTERS = ("total", "block", "audit", "unattached", "risky")


def fold() -> int:
    """Make one row of each organization's rows, as many as fit between two turns; returns how many became fewer."""
    with transaction.atomic():
        # Who else folds waits here, and then finds these rows gone.
        rows = list(PolicyCount.objects.select_for_update().order_by("pk")[:ROWS_A_TURN])
        sums: dict[int, PolicyCount] = {}
        for row in rows:
            whole = sums.setdefault(row.organization_id, PolicyCount(organization_id=row.organization_id))
            for name in COUNTERS:
                setattr(whole, name, (getattr(whole, name) or 0) + getattr(row, name))
        if len(sums) == len(rows):
            return 0
        PolicyCount.objects.filter(pk__in=[row.pk for row in rows]).delete()
        PolicyCount.objects.bulk_create(sums.values())
    return len(rows) - len(sums)
