"""The route of the job summary."""

from django.urls import path

from policystore.traffic.views import summary

app_name = "telemetry"

_REPOSITORY = "v1/github/<str:owner>/<str:repository>/actions"

urlpatterns = [
    path(
        f"{_REPOSITORY}/runs/<str:run_id>/correlation/<str:correlation_id>/job-markdown-summary",
        summary.job_markdown_summary,
        name="job-markdown-summary",
    ),
]
