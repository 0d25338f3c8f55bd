"""The URLs of the fetch process, all of them the same as in the web process; see `runners.fetch.app`."""

from django.urls import include, path, re_path

from policystore.api import openapi
from policystore.config.urls import JOB_SUMMARY, runner_urls
from policystore.operations import probes
from policystore.traffic import job_summary

urlpatterns = [
    path("", include((runner_urls, "runners"))),
    path(JOB_SUMMARY, job_summary.job_markdown_summary, name="job-markdown-summary"),
    re_path(r"^v1/clusters(?:/(?P<name>[^/]*)[\s\S]*)?$", openapi.invalid_cluster, name="invalid-cluster"),
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("metrics", probes.prometheus, name="metrics"),
]
