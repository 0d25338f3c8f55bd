"""The URLs of the fetch process, all of them the same as in the web process; see `runners.fetch.app`."""

from django.urls import include, path, re_path

from policystore.api import openapi
from policystore.config.urls import runner_urls
from policystore.operations import probes

urlpatterns = [
    path("", include((runner_urls, "runners"))),
    path("", include("policystore.traffic.urls")),
    re_path(r"^v1/clusters(?:/(?P<name>[^/]*)[\s\S]*)?$", openapi.invalid_cluster, name="invalid-cluster"),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.prometheus, name="metrics"),
]
