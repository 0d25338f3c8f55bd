"""The pages of job runs, below an organization."""

from django.urls import path

from policystore.runners.pages import runs
from policystore.traffic.views import run

app_name = "runs"

urlpatterns = [
    path("", runs.run_list, name="list"),
    path("<int:run_id>/", run.run, name="run"),
]
