"""The baseline over the API, and the job summary. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.traffic.views import api, summary

app_name = "telemetry"

_REPOSITORY = "v1/github/<str:owner>/<str:repository>/actions"

urlpatterns = [
    path("v1/github/<str:owner>/actions/baseline", api.organization_baseline, name="organization-baseline"),
    path("v1/github/<str:owner>/<str:repository>/baseline", api.repository_baseline, name="repository-baseline"),
    path(
        f"{_REPOSITORY}/runs/<str:run_id>/correlation/<str:correlation_id>/job-markdown-summary",
        summary.job_markdown_summary,
        name="job-markdown-summary",
    ),
]
