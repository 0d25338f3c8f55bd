"""The addresses of the runner protocol and the management API. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.runners.views import description, explain, fetching, management, unauthenticated_api

app_name = "runners"

_ORGANIZATION = "v1/github/<str:owner>/actions"
_REPOSITORY = "v1/github/<str:owner>/<str:repository>/actions"

urlpatterns = [
    path("v1", unauthenticated_api.root, name="root"),
    path(f"{_REPOSITORY}/policies/workflow-policy", fetching.workflow_policy, name="workflow-policy"),
    path(f"{_REPOSITORY}/policies/workflow-check", unauthenticated_api.workflow_check, name="workflow-check"),
    path(f"{_REPOSITORY}/policies/workflow-policy/status", unauthenticated_api.policy_status, name="policy-status"),
    path(f"{_REPOSITORY}/policies/which", explain.api, name="which"),
    path(f"{_REPOSITORY}/runs/<str:run_id>/monitor", unauthenticated_api.monitor, name="monitor"),
    path(f"{_REPOSITORY}/subscription", unauthenticated_api.subscription, name="subscription"),
    path(
        f"{_ORGANIZATION}/tls-inspection-status",
        unauthenticated_api.tls_inspection_status,
        name="tls-inspection-status",
    ),
    path(f"{_ORGANIZATION}/policies/<str:name>", management.policy, name="policy"),
    path(f"{_ORGANIZATION}/policies/<str:name>/attach", management.attachment, name="attachment"),
    path("v1/global-feature-flags", unauthenticated_api.feature_flags, name="feature-flags"),
    path("v1/global-blocklist", unauthenticated_api.global_blocklist, name="global-blocklist"),
    path(
        "v1/harden-runner-agent/github/<str:platform>/single/releases/<str:version>",
        unauthenticated_api.agent_release,
        name="agent-release",
    ),
    path("v1/openapi.json", description.openapi, name="openapi"),
]
