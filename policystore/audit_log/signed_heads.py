"""Signed chain heads: kept elsewhere, they reveal a history that was truncated or rewritten as a whole.

A signed head is a line of JSON:

    {"at": "2026-01-31T12:00:00+00:00", "digest": "…", "format": 1, "key": PUBLIC KEY, "ledger": "history",
     "owner": "octo-org", "sequence": 7, "signature": "…"}

The signature is Ed25519 over the same line without it, in ASCII, with keys in order and no spaces; key and signature
are in base64. The private key is derived from HISTORY_SIGNING_SECRET.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from policystore.audit_log.hash_chain import Place
from policystore.audit_log.models import HistoryCheck

FORMAT = 1
# By ledger and owner, then by sequence: the digest that was signed.
Signed = Mapping[tuple[str, str], Mapping[int, str]]


class BadHead(ValueError):
    """A line that is not a signed head, or not signed by a trusted key; `str()` says which and why."""


def public_key() -> str:
    """The key by which this store's signatures are verified."""
    return base64.b64encode(_private_key().public_key().public_bytes_raw()).decode()


def sign(ledger: str, owner: str, place: Place, *, at: datetime) -> str:
    """The line for a place in a chain."""
    head: dict[str, Any] = {
        "at": at.astimezone(UTC).isoformat(timespec="seconds"),
        "digest": place.digest,
        "format": FORMAT,
        "key": public_key(),
        "ledger": ledger,
        "owner": owner,
        "sequence": place.sequence,
    }
    signature = base64.b64encode(_private_key().sign(_signed_bytes(head))).decode()
    return json.dumps(head | {"signature": signature}, sort_keys=True, separators=(",", ":"))


def read(lines: Iterable[str], *, trusted: Collection[str]) -> Signed:
    """Parse the lines, skipping empty ones; each must be signed by one of the `trusted` keys. Raises BadHead."""
    found: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for number, line in enumerate(lines, 1):
        if line.strip():
            head = _read(line, f"line {number}", trusted)
            digests = found[head["ledger"], head["owner"]]
            if digests.setdefault(head["sequence"], head["digest"]) != head["digest"]:
                raise BadHead(f"line {number} has another digest for event {head['sequence']} than a line before it")
    return found


def merged(first: Signed, second: Signed) -> Signed:
    """Merge two sets of heads. Raises BadHead if they contradict each other."""
    both = {chain: dict(digests) for chain, digests in first.items()}
    for chain, digests in second.items():
        known = both.setdefault(chain, {})
        for sequence, digest in digests.items():
            if known.setdefault(sequence, digest) != digest:
                raise BadHead(f"event {sequence} of {chain[1]} was signed with two digests")
    return both


def _read(line: str, where: str, trusted: Collection[str]) -> dict[str, Any]:
    try:
        head = json.loads(line)
        signature = base64.b64decode(head.pop("signature"), validate=True)
        kinds = {"sequence": int, "digest": str, "ledger": str, "owner": str, "key": str}
        if head["format"] != FORMAT or not all(isinstance(head[name], kind) for name, kind in kinds.items()):
            raise BadHead(f"{where} is not a signed head")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error) as error:
        raise BadHead(f"{where} is not a signed head") from error
    if head["key"] not in trusted:
        raise BadHead(f"{where} is signed by another key, {head['key']}; name it with --public-key if you trust it")
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(head["key"])).verify(signature, _signed_bytes(head))
    except (InvalidSignature, ValueError) as error:
        raise BadHead(f"{where} was changed after it was signed") from error
    return dict(head)


def _signed_bytes(head: Mapping[str, Any]) -> bytes:
    return json.dumps(head, sort_keys=True, separators=(",", ":")).encode("ascii")


def _private_key() -> Ed25519PrivateKey:
    derivation = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"policystore history heads")
    return Ed25519PrivateKey.from_private_bytes(derivation.derive(settings.HISTORY_SIGNING_SECRET.encode()))


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
    signed = [sign(one.ledger, one.owner, Place(one.sequence, one.digest), at=now) for one in checks]
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
