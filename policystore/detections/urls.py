"""The routes that receive telemetry. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.detections.views import ingest

app_name = "ingest"

_JOB = "v1/github/<str:owner>/<str:repository>/actions/jobs/<str:correlation_id>"

urlpatterns = [
    path(f"{_JOB}/dns", ingest.dns, name="dns"),
    path(f"{_JOB}/networkconnection", ingest.network_connection, name="network-connection"),
    path(f"{_JOB}/events", ingest.batch, name="events"),
    path(f"{_JOB}/detections", ingest.report, name="report"),
]
