"""Reads how the store is doing."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from policystore.operations.actions import WORKER
from policystore.operations.models import Heartbeat


def worker_silence() -> timedelta | None:
    """How long ago a worker gave its last sign of life, by the database's clock; None if none ever did."""
    age = ExpressionWrapper(Now() - F("at"), output_field=DurationField())
    silence: timedelta | None = (
        Heartbeat.objects.filter(name=WORKER).annotate(age=age).values_list("age", flat=True).first()
    )
    return silence
