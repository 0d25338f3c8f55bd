"""The organizations, repositories, workflows and ARC clusters the store knows of."""

from __future__ import annotations

from django.db import models


class Organization(models.Model):
    """A GitHub organization; `key` is its login in lower case, by which everything else names it.

    `github_id` is GitHub's numeric id. It stays the same when the organization is renamed, and an account that
    registers the free name afterwards has a different one. It is learned when the first member signs in.
    """

    login = models.CharField(max_length=255)
    key = models.CharField(max_length=255, unique=True)
    github_id = models.BigIntegerField(null=True, blank=True, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["key"]

    def __str__(self) -> str:
        return self.login

    def lock(self) -> None:
        """Lock the row until the transaction ends. Rows that refer to it can be written meanwhile (`no_key`)."""
        Organization.objects.select_for_update(no_key=True).get(pk=self.pk)


class Repository(models.Model):
    """A repository of an organization; names compare without case."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="repositories")
    name = models.CharField(max_length=255)
    key = models.CharField(max_length=255)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["key"]
        verbose_name_plural = "repositories"
        constraints = [models.UniqueConstraint(fields=["organization", "key"], name="repository_once_per_organization")]

    def __str__(self) -> str:
        return f"{self.organization.login}/{self.name}"


class Workflow(models.Model):
    """A workflow file of a repository, such as `ci.yml`; file names compare with case."""

    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="workflows")
    file_name = models.CharField(max_length=512)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["file_name"]
        constraints = [models.UniqueConstraint(fields=["repository", "file_name"], name="workflow_once_per_repository")]

    def __str__(self) -> str:
        return f"{self.repository}/{self.file_name}"


class Cluster(models.Model):
    """An Actions Runner Controller cluster of an organization.

    `counts_unverified` is an owner's choice: telemetry of jobs that name this cluster counts without proof.
    """

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="clusters")
    name = models.CharField(max_length=255)
    counts_unverified = models.BooleanField(default=False)
    # False while only people have named it, who may have mistyped it.
    named_by_runner = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["organization", "name"], name="cluster_once_per_organization")]

    def __str__(self) -> str:
        return self.name
