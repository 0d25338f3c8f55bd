"""Signs how far the chains were verified, and puts that away where whoever changes the database does not reach."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from policystore.policies import signed_heads
from policystore.policies.chain import Place
from policystore.policies.models import HistoryCheck

S3 = "s3://"


def sign_new() -> int:
    """Sign what was verified since the last time, where HISTORY_HEADS_TO says so; returns how many heads."""
    target = settings.HISTORY_HEADS_TO
    fresh = HistoryCheck.objects.filter(problem="", sequence__gt=F("signed_sequence"))
    return put_away(list(fresh.order_by("pk")), target) if target else 0


def put_away(checks: list[HistoryCheck], target: str) -> int:
    """Sign these and write them to `target`: a file, to which lines are added, or s3://BUCKET/PREFIX.

    Raises OSError, or what boto3 raises. Only then are they noted as signed.
    """
    now = timezone.now()
    if not checks:
        return 0
    signed = [signed_heads.sign(one.ledger, one.owner, Place(one.sequence, one.digest), at=now) for one in checks]
    text = "".join(f"{line}\n" for line in signed)
    if target.startswith(S3):
        _put_object(target, f"{now:%Y/%m/%d/%H%M%S%f}.jsonl", text)
    else:
        _append(Path(target), text)
    for one in checks:
        HistoryCheck.objects.filter(pk=one.pk).update(signed_sequence=one.sequence)
    return len(checks)


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _put_object(target: str, name: str, text: str) -> None:
    bucket, _, prefix = target.removeprefix(S3).partition("/")
    key = f"{prefix.strip('/')}/{name}" if prefix.strip("/") else name
    # Region, credentials and another endpoint come from the environment, as for every tool that speaks S3.
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/x-ndjson")
