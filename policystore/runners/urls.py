"""The routes of the runner protocol. None ends in a slash, and none redirects."""

from django.urls import path

from policystore.runners import protocol

app_name = "runners"

_REPOSITORY = "v1/github/<str:owner>/<str:repository>/actions"

urlpatterns = [
    path("v1", protocol.root, name="root"),
    path(f"{_REPOSITORY}/policies/workflow-policy", protocol.workflow_policy, name="workflow-policy"),
    path(f"{_REPOSITORY}/policies/workflow-check", protocol.workflow_check, name="workflow-check"),
    path(f"{_REPOSITORY}/policies/workflow-policy/status", protocol.policy_status, name="policy-status"),
    path(f"{_REPOSITORY}/runs/<str:run_id>/monitor", protocol.monitor, name="monitor"),
    path(f"{_REPOSITORY}/subscription", protocol.subscription, name="subscription"),
    path(
        "v1/github/<str:owner>/actions/tls-inspection-status",
        protocol.tls_inspection_status,
        name="tls-inspection-status",
    ),
    path("v1/global-feature-flags", protocol.feature_flags, name="feature-flags"),
    path("v1/global-blocklist", protocol.global_blocklist, name="global-blocklist"),
    path(
        "v1/harden-runner-agent/github/<str:platform>/single/releases/<str:version>",
        protocol.agent_release,
        name="agent-release",
    ),
]
