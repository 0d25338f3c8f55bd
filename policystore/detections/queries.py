"""Reads detections for pages and the API, and serializes them for the API and integrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet

from policystore.detections.models import Detection, title_of
from policystore.inventory.models import Organization
from policystore.policies.search import search_words
from policystore.runners import by_endpoint
from policystore.runners.models import JobRun
from policystore.runners.queries import github_url
from policystore.web import pagination
from policystore.web.pagination import Page, newest_first

SHOWN_OF_RUN = 50
SHOWN_IDS = 100
MAX_CHOSEN = 500
# Jumps from one id to the next in the index; DISTINCT would read every detection.
_IDS_SEEN = """
WITH RECURSIVE seen(id) AS (
  SELECT MIN(detection_id) FROM detections_detection WHERE organization_id = %s
  UNION ALL
  SELECT (
    SELECT MIN(d.detection_id) FROM detections_detection d WHERE d.organization_id = %s AND d.detection_id > seen.id
  )
  FROM seen WHERE seen.id IS NOT NULL
)
SELECT id FROM seen LIMIT %s
"""


def new_detections(organization: Organization) -> QuerySet[Detection]:
    """The detections that are neither resolved nor suppressed."""
    return Detection.objects.filter(organization=organization, status=Detection.Status.NEW)


def page(
    organization: Organization,
    *,
    status: str = "",
    detection_id: str = "",
    endpoint: str = "",
    search: str = "",
    before: str = "",
    size: int = 50,
) -> Page[Detection]:
    """An organization's detections, newest first, filtered by status, id, endpoint and search words.

    Reports of unverified jobs are only included if `status` is `unverified`.
    """
    rows = _filtered(organization, status, detection_id)
    matching = _searched(rows, search, endpoint).select_related("job_run", "rule")
    return newest_first(matching, size=size, before=before, among=rows if search or endpoint else None)


def group_page(
    organization: Organization,
    *,
    status: str = "",
    detection_id: str = "",
    endpoint: str = "",
    search: str = "",
    before: str = "",
) -> Page[dict[str, Any]]:
    """The detections of `page`, grouped by id and endpoint; see `by_endpoint.group_page`. Each group has a `title`."""
    rows = _filtered(organization, status, detection_id)
    matching = _searched(rows, search, endpoint)
    groups = by_endpoint.group_page(matching, "detection_id", among=rows, time="at", before=before)
    for group in groups.rows:
        group["title"] = title_of(group["detection_id"])
    return groups


def of_run(run: JobRun) -> list[Detection]:
    """The detections of one job, newest first, at most SHOWN_OF_RUN."""
    return list(Detection.objects.filter(job_run=run).order_by("-pk")[:SHOWN_OF_RUN])


def ids_seen(organization: Organization) -> list[str]:
    """The ids of detections that the organization has had, at most SHOWN_IDS."""
    with connection.cursor() as cursor:
        cursor.execute(_IDS_SEEN, [organization.pk, organization.pk, SHOWN_IDS])
        return [row[0] for row in cursor.fetchall() if row[0] is not None]


def chosen(organization: Organization, ids: Sequence[str]) -> list[Detection]:
    """The organization's detections among the ids that were ticked on a page, at most MAX_CHOSEN."""
    numbers = {number for number in map(pagination.parse_row_id, ids) if number is not None}
    return list(Detection.objects.filter(organization=organization, pk__in=sorted(numbers)[:MAX_CHOSEN]))


def payload(detection: Detection) -> dict[str, object]:
    """One detection event as JSON values. `job_run` and `organization` must be loaded."""
    run = detection.job_run
    owner = detection.organization.login
    at = str(int(detection.at.timestamp()))
    event: dict[str, object] = {
        "id": detection.detection_id,
        "name": detection.title,
        "owner": owner,
        "repo": run.repository,
        "workflow_id": run.workflow,
        "workflow_path": f".github/workflows/{run.workflow}" if run.workflow else "",
        "run_id": run.run_id,
        "job_id": run.correlation_id,
        "job": run.job,
        "timestamp": at,
        "detection": detection.detail or detection.endpoint,
        "id_timestamp": f"{detection.detection_id}_{at}",
        "html_url": github_url(detection.organization, run),
        "endpoint": detection.endpoint,
        "process": detection.process,
        "status": detection.status,
        "policy_name": detection.policy_name,
        # The number in the store's URLs; `id` is the kind of detection.
        "detection_number": detection.pk,
    }
    if detection.is_lockdown:
        event |= {"is_lockdown": True, "job_terminated": detection.job_terminated}
    return event


def _filtered(organization: Organization, status: str, detection_id: str) -> QuerySet[Detection]:
    rows = Detection.objects.filter(organization=organization)
    if status in Detection.Status.values:
        rows = rows.filter(status=status)
    else:
        rows = rows.exclude(status=Detection.Status.UNVERIFIED)
    if detection_id:
        rows = rows.filter(detection_id=detection_id)
    return rows


def _searched(rows: QuerySet[Detection], search: str, endpoint: str) -> QuerySet[Detection]:
    if endpoint:
        rows = by_endpoint.of_endpoint(rows, endpoint)
    for word in search_words(search):
        rows = rows.filter(
            Q(host__icontains=word)
            | Q(process__icontains=word)
            | Q(policy_name__icontains=word)
            | Q(detail__icontains=word)
            | Q(job_run__repository__icontains=word)
            | Q(job_run__workflow__icontains=word)
        )
    return rows
