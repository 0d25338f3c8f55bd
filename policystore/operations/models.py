"""The state of the store's own processes."""

from __future__ import annotations

from django.db import models


class Heartbeat(models.Model):
    """The last heartbeat of a part of the store, by the database's clock; one row for each part."""

    name = models.CharField(max_length=40, primary_key=True)
    process = models.CharField(max_length=255)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name}: {self.process}"
