"""The runner protocol's addresses. None ends in a slash, and none redirects."""

from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from policystore.runners import views

app_name = "runners"

urlpatterns = [
    path(
        "github/<str:owner>/<str:repository>/actions/policies/workflow-policy",
        csrf_exempt(views.workflow_policy),
        name="workflow-policy",
    ),
]
