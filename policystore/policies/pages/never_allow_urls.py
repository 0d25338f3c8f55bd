"""The addresses of never-allow hosts, below an organization's settings."""

from django.urls import path

from policystore.policies.pages import never_allow

app_name = "never-allow"

urlpatterns = [
    path("", never_allow.hosts, name="list"),
    path("<int:entry_id>/remove/", never_allow.remove, name="remove"),
]
