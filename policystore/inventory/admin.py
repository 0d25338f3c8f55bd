"""The inventory in the Django admin, read-only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from policystore.inventory.models import Cluster, Organization, Repository, Workflow


class Narrow(admin.ModelAdmin):  # type: ignore[type-arg]
    """Filters its list only by its own filters and search.

    Django would accept any column in the URL, even one that no page shows, which reveals a secret letter by letter, and
    values that the database refuses.
    """

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Return True if one of the filters can have put this into the URL."""
        offered = {f"{field}{ending}" for field in self.list_filter for ending in ("", "__exact", "__isnull")}
        return lookup in offered and "\0" not in "".join(value)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model | None:
        """The row, or None; also for a NUL, which PostgreSQL refuses, and a number that is too large for SQLite."""
        try:
            return None if "\0" in object_id else super().get_object(request, object_id, from_field)
        except OverflowError:
            return None


class LookOnly(Narrow):
    """Shows rows read-only: they change only through the actions that record history."""

    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


admin.site.register(Organization, LookOnly, search_fields=["key"])
admin.site.register(
    Repository,
    LookOnly,
    list_display=["name", "organization"],
    list_select_related=["organization"],
    search_fields=["key", "organization__key"],
)
admin.site.register(
    Workflow,
    LookOnly,
    list_display=["file_name", "repository"],
    list_select_related=["repository__organization"],
    search_fields=["file_name", "repository__key"],
)
admin.site.register(
    Cluster, LookOnly, list_display=["name", "organization", "named_by_runner"], list_select_related=["organization"]
)
