"""The addresses of endpoint sets, below an organization."""

from django.urls import path

from policystore.policies.pages import changing_sets, endpoint_sets

app_name = "endpoint-sets"

urlpatterns = [
    path("", endpoint_sets.list_sets, name="list"),
    path("new/", changing_sets.new, name="new"),
    path("check/", changing_sets.check, name="check"),
    path("<int:set_id>/", endpoint_sets.view, name="view"),
    path("<int:set_id>/edit/", changing_sets.edit, name="edit"),
    path("<int:set_id>/delete/", changing_sets.delete, name="delete"),
    path("<int:set_id>/history/", endpoint_sets.history, name="history"),
]
