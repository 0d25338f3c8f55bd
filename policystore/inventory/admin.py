"""What the store knows of, in the Django admin: support staff look."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from policystore.inventory.models import Cluster, Organization, Repository, Workflow


class LookOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows rows and lets nobody add, change or delete one past the actions that write history."""

    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Organization)
class OrganizationAdmin(LookOnly):
    """Organizations."""

    search_fields = ["key"]


@admin.register(Repository)
class RepositoryAdmin(LookOnly):
    """Repositories of all organizations."""

    list_display = ["name", "organization"]
    list_select_related = ["organization"]
    search_fields = ["key", "organization__key"]


@admin.register(Workflow)
class WorkflowAdmin(LookOnly):
    """Workflows of all organizations."""

    list_display = ["file_name", "repository"]
    list_select_related = ["repository__organization"]
    search_fields = ["file_name", "repository__key"]


@admin.register(Cluster)
class ClusterAdmin(LookOnly):
    """ARC clusters of all organizations."""

    list_display = ["name", "organization"]
    list_select_related = ["organization"]
