"""The addresses of the runner protocol and the management API. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.runners.views import fetching

app_name = "runners"

urlpatterns = [
    path(
        "github/<str:owner>/<str:repository>/actions/policies/workflow-policy",
        fetching.workflow_policy,
        name="workflow-policy",
    ),
]
