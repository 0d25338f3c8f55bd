"""Writes signs of life."""

from __future__ import annotations

import os
import socket

from django.db.models.functions import Now

from policystore.operations.models import Heartbeat

WORKER = "worker"
PROBE = "probe"
INTEGRITY = "integrity"


def beat(*, name: str) -> None:
    """Say that this part of the store lives. Raises DatabaseError where the database takes no writes."""
    Heartbeat.objects.bulk_create(
        [Heartbeat(name=name, process=f"{socket.gethostname()}, process {os.getpid()}", at=Now())],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["process", "at"],
    )


def worker_lives() -> None:
    """The worker's sign of life."""
    beat(name=WORKER)
