"""The job summary, asked for by a job's last step without a key."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from policystore.runners import job_summary
from policystore.runners.fetch.handler import canonical_owner
from policystore.runners.protocol import known_run
from policystore.traffic import queries
from policystore.web.json_api import refuse, route
from policystore.web.responses import Reply


@route("GET")
def job_markdown_summary(request: HttpRequest, owner: str, repository: str, run_id: str, correlation_id: str) -> Reply:
    """Markdown for a job that the store saw a short while ago; 403 for all others."""
    run = known_run(request, canonical_owner(owner), repository, correlation_id, run_id)
    if run is None:
        raise refuse(403, "unknown_job_run", "The store has not seen this job, or not lately.")
    run_url = settings.PUBLIC_URL + reverse("runs:run", args=[run.organization.key, run.pk])
    text = job_summary.markdown(run, queries.observed(run), run_url=run_url)
    return Reply(status=200, body=text.encode(), content_type="text/markdown; charset=utf-8")
