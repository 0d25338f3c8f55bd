"""The job summary that a job's last step requests without a key: its policy and its calls, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings
from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.job_summary import Call, Observed, markdown
from policystore.runners.models import JobRun
from policystore.runners.protocol import known_run
from policystore.traffic.models import NOT_ALLOWED, NetworkEvent, Status
from policystore.web.json_api import refuse, route
from policystore.web.responses import Reply

MOST_CALLS = 200


@route("GET")
def job_markdown_summary(request: HttpRequest, owner: str, repository: str, run_id: str, correlation_id: str) -> Reply:
    """Markdown for a job that the store saw recently; 403 for any other."""
    run = known_run(request, canonical_owner(owner), repository, correlation_id, run_id)
    if run is None:
        raise refuse(403, "unknown_job_run", "The store has not seen this job, or not recently.")
    run_url = settings.PUBLIC_URL + reverse("runs:run", args=[run.organization.key, run.pk])
    text = markdown(run, observed(run), run_url=run_url)
    return Reply(status=200, body=text.encode(), content_type="text/markdown; charset=utf-8")


def observed(run: JobRun) -> Observed:
    """The calls that were blocked, not on the allowlist or undetermined, and the number of endpoints."""
    rows = NetworkEvent.objects.filter(job_run=run)
    return Observed(
        blocked=_calls(rows.filter(status=Status.BLOCKED)),
        off_list=_calls(rows.filter(status__in=NOT_ALLOWED)),
        undetermined=_calls(rows.filter(status=Status.UNDETERMINED)),
        endpoints=_endpoints_called(run),
    )


def _endpoints_called(run: JobRun) -> int:
    if run.is_verified:
        return run.endpoints.count()
    connections = NetworkEvent.objects.filter(job_run=run, kind=NetworkEvent.Kind.CONNECTION).order_by()
    return connections.values("host", "port").distinct().count()


def _calls(rows: QuerySet[NetworkEvent]) -> Sequence[Call]:
    grouped = rows.order_by().values("host", "port").annotate(times=Count("pk"), by=Max("process"))
    ordered = grouped.order_by("-times", "host", "port")
    return [Call(f"{row['host']}:{row['port']}", row["times"], row["by"]) for row in ordered[:MOST_CALLS]]
