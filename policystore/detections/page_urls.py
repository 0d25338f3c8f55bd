"""The pages of detections, below an organization."""

from django.urls import path

from policystore.detections.views import pages, rules

app_name = "detections"

urlpatterns = [
    path("", pages.detection_list, name="list"),
    path("status/", pages.change_chosen, name="change-chosen"),
    path("of-run/<int:run_id>/", pages.of_run, name="of-run"),
    path("<int:detection_id>/", pages.detection, name="detection"),
    path("<int:detection_id>/status/", pages.change_status, name="change-status"),
    path("suppression-rules/", rules.rules, name="rules"),
    path("suppression-rules/new/", rules.new, name="new-rule"),
    path("suppression-rules/<int:rule_id>/remove/", rules.remove, name="remove-rule"),
]
