"""The URLs of the fetch process, all of them the same as in the web process; see `runners.fetch.app`."""

from django.urls import include, path

from policystore.config.urls import invalid_cluster_url, job_summary_url, probe_urls, runner_urls

urlpatterns = [
    path("", include((runner_urls, "runners"))),
    job_summary_url,
    invalid_cluster_url,
    *probe_urls,
]
