"""What a change to policies would do, below an organization: fragments for the pages of policies, and whole pages."""

from django.urls import path

from policystore.traffic.views import impact

app_name = "impact"

urlpatterns = [
    path("draft/", impact.draft, name="draft"),
    path("<int:policy_id>/attach/", impact.attach, name="attach"),
    path("<int:policy_id>/detach/", impact.detach, name="detach"),
    path("<int:policy_id>/delete/", impact.delete, name="delete"),
]
