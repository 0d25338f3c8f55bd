"""What the fetch process answers, all of it at the same addresses as the web process; see `runner_routes`."""

from django.urls import include, path, re_path

from policystore.operations import views as probes
from policystore.runners.views import description, fetching, open_calls
from policystore.traffic.views import summary

_REPOSITORY = "github/<str:owner>/<str:repository>/actions"

runner_patterns = [
    path(f"{_REPOSITORY}/policies/workflow-policy", fetching.workflow_policy, name="workflow-policy"),
    path(f"{_REPOSITORY}/policies/workflow-check", open_calls.workflow_check, name="workflow-check"),
    path(f"{_REPOSITORY}/policies/workflow-policy/status", open_calls.policy_status, name="policy-status"),
    path(f"{_REPOSITORY}/runs/<str:run_id>/monitor", open_calls.monitor, name="monitor"),
    path(f"{_REPOSITORY}/subscription", open_calls.subscription, name="subscription"),
    path(
        f"{_REPOSITORY}/runs/<str:run_id>/correlation/<str:correlation_id>/job-markdown-summary",
        summary.job_markdown_summary,
        name="job-markdown-summary",
    ),
    path(
        "github/<str:owner>/actions/tls-inspection-status",
        open_calls.tls_inspection_status,
        name="tls-inspection-status",
    ),
    path("global-feature-flags", open_calls.feature_flags, name="feature-flags"),
    path("global-blocklist", open_calls.global_blocklist, name="global-blocklist"),
    path(
        "harden-runner-agent/github/<str:platform>/single/releases/<str:version>",
        open_calls.agent_release,
        name="agent-release",
    ),
]

urlpatterns = [
    path("v1", open_calls.root, name="root"),
    path("v1/", include(runner_patterns)),
    re_path(r"^v1/clusters(?:/(?P<name>[^/]*)[\s\S]*)?$", description.invalid_cluster, name="invalid-cluster"),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.prometheus, name="metrics"),
]
