"""Which job runs called an endpoint, for the baseline over the API."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic.models import RunEndpoint
from policystore.traffic.queries import Endpoint

EACH = 5
ROWS_READ = 20_000


def latest(organization: Organization, endpoints: Sequence[Endpoint]) -> dict[tuple[str, int], list[dict[str, object]]]:
    """The latest runs that called each endpoint, at most EACH, out of the newest ROWS_READ sightings."""
    wanted = {(endpoint.host, endpoint.port) for endpoint in endpoints}
    rows = RunEndpoint.objects.filter(organization=organization).select_related("job_run").order_by("-pk")[:ROWS_READ]
    found: defaultdict[tuple[str, int], list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        seen = found[row.host, row.port]
        if (row.host, row.port) in wanted and len(seen) < EACH:
            seen.append(_observation(organization, row))
    return found


def total_runs(organization: Organization) -> int:
    """How many job runs of the organization made a call."""
    return JobRun.objects.filter(organization=organization, calls__gt=0).count()


def _observation(organization: Organization, row: RunEndpoint) -> dict[str, object]:
    run = row.job_run
    return {
        "repo": f"{organization.login}/{run.repository}",
        "workflow_file_name": run.workflow,
        "job": run.job,
        "run_id": run.run_id,
        "timestamp": row.last_seen_at.isoformat(),
    }
