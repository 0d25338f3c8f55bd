"""The store's own state, in the Django admin: support staff look."""

from __future__ import annotations

from django.contrib import admin

from policystore.inventory.admin import LookOnly
from policystore.operations.models import Heartbeat

admin.site.register(Heartbeat, LookOnly, list_display=["name", "process", "at"])
