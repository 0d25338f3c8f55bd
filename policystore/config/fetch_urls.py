"""What the fetch process answers, all of it at the same addresses as the web process; see `runner_routes`."""

from django.urls import include, path, re_path

from policystore.operations import probes
from policystore.runners.views import description, fetching, unauthenticated_api
from policystore.traffic.views import summary

_REPOSITORY = "github/<str:owner>/<str:repository>/actions"

runner_patterns = [
    path(f"{_REPOSITORY}/policies/workflow-policy", fetching.workflow_policy, name="workflow-policy"),
    path(f"{_REPOSITORY}/policies/workflow-check", unauthenticated_api.workflow_check, name="workflow-check"),
    path(f"{_REPOSITORY}/policies/workflow-policy/status", unauthenticated_api.policy_status, name="policy-status"),
    path(f"{_REPOSITORY}/runs/<str:run_id>/monitor", unauthenticated_api.monitor, name="monitor"),
    path(f"{_REPOSITORY}/subscription", unauthenticated_api.subscription, name="subscription"),
    path(
        f"{_REPOSITORY}/runs/<str:run_id>/correlation/<str:correlation_id>/job-markdown-summary",
        summary.job_markdown_summary,
        name="job-markdown-summary",
    ),
    path(
        "github/<str:owner>/actions/tls-inspection-status",
        unauthenticated_api.tls_inspection_status,
        name="tls-inspection-status",
    ),
    path("global-feature-flags", unauthenticated_api.feature_flags, name="feature-flags"),
    path("global-blocklist", unauthenticated_api.global_blocklist, name="global-blocklist"),
    path(
        "harden-runner-agent/github/<str:platform>/single/releases/<str:version>",
        unauthenticated_api.agent_release,
        name="agent-release",
    ),
]

urlpatterns = [
    path("v1", unauthenticated_api.root, name="root"),
    path("v1/", include(runner_patterns)),
    re_path(r"^v1/clusters(?:/(?P<name>[^/]*)[\s\S]*)?$", description.invalid_cluster, name="invalid-cluster"),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.prometheus, name="metrics"),
]
