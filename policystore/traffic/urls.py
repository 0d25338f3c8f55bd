"""Where telemetry arrives, and the job summary made of it. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.traffic.views import ingest, summary

app_name = "telemetry"

_REPOSITORY = "v1/github/<str:owner>/<str:repository>/actions"
_JOB = f"{_REPOSITORY}/jobs/<str:correlation_id>"

urlpatterns = [
    path(f"{_JOB}/dns", ingest.dns, name="dns"),
    path(f"{_JOB}/networkconnection", ingest.network_connection, name="network-connection"),
    path(f"{_JOB}/events", ingest.batch, name="events"),
    path(
        f"{_REPOSITORY}/runs/<str:run_id>/correlation/<str:correlation_id>/job-markdown-summary",
        summary.job_markdown_summary,
        name="job-markdown-summary",
    ),
]
