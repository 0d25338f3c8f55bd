"""The Policy Store's addresses, below an organization."""

from django.urls import path

from policystore.policies.pages import (
    as_code,
    attaching,
    break_glass,
    change_requests,
    editing,
    exceptions,
    history,
    reading,
    staged,
    versions,
)

app_name = "policies"

urlpatterns = [
    path("", reading.policy_list, name="list"),
    path("new/", editing.new, name="new"),
    path("check/", editing.check, name="check"),
    path("break-glass/", break_glass.break_glass, name="break_glass"),
    path("break-glass/<int:break_glass_id>/end/", break_glass.end, name="end_break_glass"),
    path("history/accounts/", history.account_history, name="account_history"),
    path("history/export/", history.export, name="export_history"),
    path("history/", history.organization_history, name="organization_history"),
    path("change-requests/", change_requests.request_list, name="change-requests"),
    path("change-requests/<int:request_id>/", change_requests.change_request, name="change-request"),
    path("<int:policy_id>/", reading.view, name="view"),
    path("<int:policy_id>/edit/", editing.edit, name="edit"),
    path("<int:policy_id>/exceptions/", exceptions.add, name="add_exception"),
    path("<int:policy_id>/exceptions/<int:exception_id>/end/", exceptions.end, name="end_exception"),
    path("<int:policy_id>/staged/", staged.staged, name="staged"),
    path("<int:policy_id>/staged/canaries/", staged.canaries, name="canaries"),
    path("<int:policy_id>/staged/promote/", staged.promote, name="promote"),
    path("<int:policy_id>/staged/discard/", staged.discard, name="discard"),
    path("<int:policy_id>/attach/", attaching.attach, name="attach"),
    path("<int:policy_id>/targets/", attaching.targets, name="targets"),
    path("<int:policy_id>/detach/", attaching.detach, name="detach"),
    path("<int:policy_id>/history/", history.policy_history, name="history"),
    path("<int:policy_id>/managed/", as_code.managed, name="managed"),
    path("<int:policy_id>/versions/", versions.version_list, name="versions"),
    path("<int:policy_id>/versions/compare/", versions.compare, name="compare"),
    path("<int:policy_id>/versions/<int:number>/", versions.version, name="version"),
    path("<int:policy_id>/versions/<int:number>/restore/", versions.restore, name="restore"),
    path("<int:policy_id>/delete/", editing.delete, name="delete"),
]
