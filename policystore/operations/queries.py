"""Reads how the store is doing."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from policystore.operations.actions import INTEGRITY, WORKER
from policystore.operations.models import Heartbeat
from policystore.policies.models import IntegrityProblem


def worker_silence() -> timedelta | None:
    """How long ago a worker gave its last sign of life, by the database's clock; None if none ever did."""
    return _age_of(WORKER)


def integrity_age() -> timedelta | None:
    """How long ago everything that decides what runners get was compared with the history; None if it never was."""
    return _age_of(INTEGRITY)


def integrity_problems() -> list[str]:
    """What the worker found that the history does not account for, a sentence each; of all organizations."""
    every = IntegrityProblem.objects.order_by("pk").values_list("problems", flat=True)
    return [sentence for sentences in every.iterator() for sentence in sentences]


def _age_of(name: str) -> timedelta | None:
    age = ExpressionWrapper(Now() - F("at"), output_field=DurationField())
    found: timedelta | None = (
        Heartbeat.objects.filter(name=name).annotate(age=age).values_list("age", flat=True).first()
    )
    return found
