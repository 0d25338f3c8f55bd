"""An owner's choice to count the telemetry of a cluster whose hooks send no API key."""

from __future__ import annotations

from django.db import transaction

from policystore.accounts import account_events
from policystore.accounts.actor import Actor
from policystore.inventory.models import Cluster
from policystore.runners.models import JobRun, Verification


def count_unverified(*, cluster: Cluster, counts: bool, by: Actor) -> None:
    """Count the unverified jobs of a cluster from now on, or stop; setting what is set already changes nothing.

    Unverified job runs that have not expired are counted, too. What was counted before is kept.
    """
    with transaction.atomic():
        changed = Cluster.objects.filter(pk=cluster.pk, counts_unverified=not counts).update(counts_unverified=counts)
        if not changed:
            return
        if counts:
            waiting = JobRun.objects.filter(organization=cluster.organization_id, cluster=cluster.name, verified_by="")
            waiting.update(verified_by=Verification.CLUSTER)
        kind = "unverified jobs counted" if counts else "unverified jobs not counted"
        account_events.record(cluster.organization, kind, by=by, subject=cluster.name, detail=f"cluster {cluster.name}")
