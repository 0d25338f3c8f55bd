"""An organization's settings."""

from django.urls import path

from policystore.accounts.views import inventory, keys, members

app_name = "settings"

urlpatterns = [
    path("harden-runner-installation/", keys.installation, name="keys"),
    path("harden-runner-installation/regenerate/", keys.regenerate, name="regenerate-key"),
    path("inventory/", inventory.inventory, name="inventory"),
    path("members/", members.members, name="members"),
    path("members/<int:membership_id>/", members.member, name="member"),
]
