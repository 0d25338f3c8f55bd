"""Where telemetry arrives, and the job summary made of it. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.traffic.views import api, ingest, summary

app_name = "telemetry"

_REPOSITORY = "v1/github/<str:owner>/<str:repository>/actions"
_JOB = f"{_REPOSITORY}/jobs/<str:correlation_id>"

urlpatterns = [
    path("v1/github/<str:owner>/actions/baseline", api.organization_baseline, name="organization-baseline"),
    path("v1/github/<str:owner>/<str:repository>/baseline", api.repository_baseline, name="repository-baseline"),
    path(f"{_JOB}/dns", ingest.dns, name="dns"),
    path(f"{_JOB}/networkconnection", ingest.network_connection, name="network-connection"),
    path(f"{_JOB}/events", ingest.batch, name="events"),
    path(
        f"{_REPOSITORY}/runs/<str:run_id>/correlation/<str:correlation_id>/job-markdown-summary",
        summary.job_markdown_summary,
        name="job-markdown-summary",
    ),
]
