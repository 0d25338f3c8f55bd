"""Which job runs called an endpoint, for the baseline over the API."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from policystore.inventory.models import Organization
from policystore.runners.models import JobRun
from policystore.traffic.models import RunEndpoint
from policystore.traffic.queries import Endpoint

EACH = 5
ENDPOINTS_PER_STATEMENT = 200
# For each endpoint a look into an index, however long ago it was called last.
_LATEST = """
SELECT {number}, id FROM (
  SELECT id FROM traffic_runendpoint WHERE organization_id = %s AND host = %s AND port = %s
  ORDER BY job_run_id DESC LIMIT %s
) AS e{number}
"""

Key = tuple[str, int]


def latest(organization: Organization, endpoints: Sequence[Endpoint]) -> dict[Key, list[dict[str, object]]]:
    """The latest runs that called each endpoint, at most EACH."""
    found: dict[Key, list[dict[str, object]]] = {}
    for start in range(0, len(endpoints), ENDPOINTS_PER_STATEMENT):
        part = endpoints[start : start + ENDPOINTS_PER_STATEMENT]
        rows = RunEndpoint.objects.filter(pk__in=_ids(organization, part)).select_related("job_run")
        for row in rows.order_by("-job_run_id"):
            found.setdefault((row.host, row.port), []).append(_observation(organization, row))
    return found


def _ids(organization: Organization, endpoints: Sequence[Endpoint]) -> list[int]:
    statement = " UNION ALL ".join(_LATEST.format(number=number) for number in range(len(endpoints)))
    values = [value for e in endpoints for value in (organization.pk, e.host, e.port, EACH)]
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [row[1] for row in cursor.fetchall()]


def total_runs(organization: Organization) -> int:
    """How many workflow runs of the organization made a call."""
    return JobRun.objects.filter(organization=organization, calls__gt=0, counts_in_repository=True).count()


def _observation(organization: Organization, row: RunEndpoint) -> dict[str, object]:
    run = row.job_run
    return {
        "repo": f"{organization.login}/{run.repository}",
        "workflow_file_name": run.workflow,
        "job": run.job,
        "run_id": run.run_id,
        "timestamp": row.last_seen_at.isoformat(),
    }
