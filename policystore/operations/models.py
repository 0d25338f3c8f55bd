"""The state of the store's own processes."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Final

from django.db import models
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now


class Heartbeat(models.Model):
    """The last heartbeat of a part of the store, by the database's clock; one row for each part."""

    WORKER: Final = "worker"
    PROBE: Final = "probe"
    INTEGRITY: Final = "integrity"

    name = models.CharField(max_length=40, primary_key=True)
    process = models.CharField(max_length=255)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name}: {self.process}"

    @staticmethod
    def beat(name: str) -> None:
        """Record that this part of the store is alive. Raises DatabaseError if the database takes no writes."""
        Heartbeat.objects.bulk_create(
            [Heartbeat(name=name, process=f"{socket.gethostname()}, process {os.getpid()}", at=Now())],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=["process", "at"],
        )

    @staticmethod
    def age(name: str) -> timedelta | None:
        """Return the time since the last heartbeat of this part; None if there never was one."""
        elapsed = ExpressionWrapper(Now() - F("at"), output_field=DurationField())
        return Heartbeat.objects.filter(name=name).annotate(elapsed=elapsed).values_list("elapsed", flat=True).first()
