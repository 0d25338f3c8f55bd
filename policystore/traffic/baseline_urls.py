"""The pages of baselines, below an organization."""

from django.urls import path

from policystore.traffic.views import baseline, importing

app_name = "baseline"

urlpatterns = [
    path("", baseline.of_organization, name="organization"),
    path("repositories/", baseline.repositories, name="repositories"),
    path("clusters/", baseline.clusters, name="clusters"),
    path("jobs/", baseline.jobs, name="jobs"),
    path("view/", baseline.view, name="view"),
    path("create-policy/", baseline.create_policy, name="create-policy"),
    path("export/", baseline.export, name="export"),
    path("import/", importing.import_endpoints, name="import"),
]
