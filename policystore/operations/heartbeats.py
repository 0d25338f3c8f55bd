"""Heartbeats of the store's processes, by the database's clock."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from policystore.operations.models import Heartbeat

WORKER = "worker"
PROBE = "probe"
INTEGRITY = "integrity"


def beat(*, name: str) -> None:
    """Record that this part of the store is alive. Raises DatabaseError if the database takes no writes."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(name=name, process=f"{socket.gethostname()}, process {os.getpid()}", at=Now())],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["process", "at"],
    )


def beat_worker() -> None:
    """Record that the worker is alive."""
    beat(name=WORKER)


def age(name: str) -> timedelta | None:
    """Return the time since the last heartbeat of this part; None if there never was one."""
    elapsed = ExpressionWrapper(Now() - F("at"), output_field=DurationField())
    ages: list[timedelta] = list(
        Heartbeat.objects.filter(name=name).annotate(age=elapsed).values_list("age", flat=True)
    )
    return ages[0] if ages else None
