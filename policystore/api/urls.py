"""The routes of the API for systems. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.api import baseline, detections, explain, management, openapi

app_name = "api"

_ORGANIZATION = "v1/github/<str:owner>/actions"

urlpatterns = [
    path(f"{_ORGANIZATION}/policies/<str:name>", management.policy, name="policy"),
    path(f"{_ORGANIZATION}/policies/<str:name>/attach", management.attachment, name="attachment"),
    path(f"{_ORGANIZATION}/baseline", baseline.organization_baseline, name="organization-baseline"),
    path(f"{_ORGANIZATION}/detections", detections.detections, name="detections"),
    path("v1/github/<str:owner>/<str:repository>/baseline", baseline.repository_baseline, name="repository-baseline"),
    path("v1/github/<str:owner>/<str:repository>/actions/policies/which", explain.explain_policy, name="which"),
    path("v1/openapi.json", openapi.openapi, name="openapi"),
]
