"""The addresses of the runner protocol and the management API. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.runners.views import description, fetching, management, open_calls, which

app_name = "runners"

_ORGANIZATION = "v1/github/<str:owner>/actions"
_REPOSITORY = "v1/github/<str:owner>/<str:repository>/actions"

urlpatterns = [
    path("v1", open_calls.root, name="root"),
    path(f"{_REPOSITORY}/policies/workflow-policy", fetching.workflow_policy, name="workflow-policy"),
    path(f"{_REPOSITORY}/policies/workflow-check", open_calls.workflow_check, name="workflow-check"),
    path(f"{_REPOSITORY}/policies/workflow-policy/status", open_calls.policy_status, name="policy-status"),
    path(f"{_REPOSITORY}/policies/which", which.api, name="which"),
    path(f"{_REPOSITORY}/runs/<str:run_id>/monitor", open_calls.monitor, name="monitor"),
    path(f"{_REPOSITORY}/subscription", open_calls.subscription, name="subscription"),
    path(f"{_ORGANIZATION}/tls-inspection-status", open_calls.tls_inspection_status, name="tls-inspection-status"),
    path(f"{_ORGANIZATION}/policies/<str:name>", management.policy, name="policy"),
    path(f"{_ORGANIZATION}/policies/<str:name>/attach", management.attachment, name="attachment"),
    path("v1/global-feature-flags", open_calls.feature_flags, name="feature-flags"),
    path("v1/global-blocklist", open_calls.global_blocklist, name="global-blocklist"),
    path(
        "v1/harden-runner-agent/github/<str:platform>/single/releases/<str:version>",
        open_calls.agent_release,
        name="agent-release",
    ),
    path("v1/openapi.json", description.openapi, name="openapi"),
]
