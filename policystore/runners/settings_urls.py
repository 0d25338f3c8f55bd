"""The URLs of an organization's settings for runners and the global blocklist."""

from django.urls import path

from policystore.runners.pages import blocklist, installation, runs

app_name = "runners-settings"

urlpatterns = [
    path("harden-runner-installation/job-hooks/", installation.job_hooks, name="job-hooks"),
    path("harden-runner-installation/job-hooks/<str:name>", installation.script, name="script"),
    path("harden-runner-installation/github-hosted/", installation.github_hosted, name="github-hosted"),
    path("harden-runner-installation/last-calls/", installation.last_calls, name="last-calls"),
    path(
        "inventory/clusters/<int:cluster_id>/unverified/",
        runs.count_unverified,
        name="count-unverified",
    ),
    path("global-blocklist/", blocklist.blocklist_page, name="blocklist"),
    path("global-blocklist/<int:entry_id>/remove/", blocklist.remove_entry, name="remove-entry"),
]
