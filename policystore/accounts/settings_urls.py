"""An organization's settings."""

from django.urls import path

from policystore.accounts.views import inventory, keys, management_keys, members

app_name = "settings"

urlpatterns = [
    path("harden-runner-installation/", keys.installation, name="keys"),
    path("harden-runner-installation/regenerate/", keys.regenerate, name="regenerate-key"),
    path("harden-runner-installation/keys/<int:arc_key_id>/clusters/", keys.clusters, name="key-clusters"),
    path("management-keys/", management_keys.management_keys, name="management-keys"),
    path("management-keys/<int:key_id>/revoke/", management_keys.revoke_key, name="revoke-key"),
    path("inventory/", inventory.inventory, name="inventory"),
    path("members/", members.members, name="members"),
    path("members/<int:membership_id>/", members.member, name="member"),
    path("members/<int:membership_id>/remove/", members.remove_member, name="remove-member"),
    path("members/removed/<int:former_id>/add/", members.add_back, name="add-back"),
]
