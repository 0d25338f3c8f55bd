"""Every address of the product."""

from django.contrib import admin
from django.urls import include, path, re_path

from policystore.operations import views as probes
from policystore.policies.views import change_requests, reading
from policystore.runners.views import coverage, description, explain
from policystore.traffic.views import insights, staged_counts

urlpatterns = [
    path("", reading.home, name="home"),
    path("", include("policystore.accounts.urls")),
    path("organizations/<str:owner>/settings/", include("policystore.accounts.settings_urls")),
    path("organizations/<str:owner>/settings/four-eyes/", change_requests.four_eyes_setting, name="four-eyes"),
    path("organizations/<str:owner>/settings/", include("policystore.runners.settings_urls")),
    path("organizations/<str:owner>/settings/never-allow-hosts/", include("policystore.policies.never_allow_urls")),
    path("organizations/<str:owner>/settings/integrations/", include("policystore.integrations.urls")),
    path("organizations/<str:owner>/runs/", include("policystore.traffic.run_urls")),
    path("organizations/<str:owner>/detections/", include("policystore.detections.page_urls")),
    path("organizations/<str:owner>/coverage/", coverage.coverage_page, name="coverage"),
    path("organizations/<str:owner>/insights/", insights.insights_page, name="insights"),
    path("organizations/<str:owner>/insights/network-events/", insights.network_events, name="network-events"),
    path("organizations/<str:owner>/baseline/", include("policystore.traffic.baseline_urls")),
    path(
        "organizations/<str:owner>/policy-store/<int:policy_id>/staged/counts/",
        staged_counts.counts,
        name="staged-counts",
    ),
    path("organizations/<str:owner>/policy-store/which/", explain.page, name="which"),
    path("organizations/<str:owner>/endpoint-sets/", include("policystore.policies.set_urls")),
    path("organizations/<str:owner>/policy-store/", include("policystore.policies.urls")),
    path("organizations/<str:owner>/impact/", include("policystore.traffic.impact_urls")),
    path("", include("policystore.runners.urls")),
    path("", include("policystore.traffic.urls")),
    path("", include("policystore.detections.urls")),
    re_path(r"^v1/clusters(?:/(?P<name>[^/]*)[\s\S]*)?$", description.invalid_cluster, name="invalid-cluster"),
    re_path(r"^v1(?:/[\s\S]*)?$", description.unknown_route, name="unknown-route"),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.prometheus, name="metrics"),
    path("admin/", admin.site.urls),
]

handler400 = "policystore.web.error_pages.bad_request"
handler500 = "policystore.web.error_pages.server_error"
