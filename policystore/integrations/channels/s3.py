"""S3 and compatible stores: one JSON Lines object per batch, below a prefix by date."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from policystore.integrations import http_client
from policystore.integrations.http_client import Outcome, Result
from policystore.integrations.models import Integration, OutboxMessage

SECONDS = 15.0
# boto3 logs what it signs, down to the request.
logging.getLogger("botocore").setLevel(logging.WARNING)

_CONFIG = {
    "signature_version": "s3v4",
    # The outbox tries again itself, later.
    "retries": {"total_max_attempts": 1},
    # Compatible stores refuse the checksums that newer clients add automatically.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


class _Wire:
    """Stands between boto3, which signs, and the network: requests go out through the checked client only."""

    def __init__(self) -> None:
        self.reply: http_client.Reply | None = None

    def carry(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """Send what boto3 signed and hand it the answer. Raises NotSent.

        Once: boto3 retries automatically where S3 names another region, and gets the same answer.
        """
        if self.reply is None:
            self.reply = self._send(request)
        return AWSResponse(request.url, self.reply.status, HeadersDict(self.reply.headers), _Raw(self.reply.body))

    def _send(self, request: AWSPreparedRequest) -> http_client.Reply:
        headers = {name: _text(value) for name, value in request.headers.items() if name.lower() != "expect"}
        body = request.body.read() if hasattr(request.body, "read") else request.body
        return http_client.send(request.method, request.url, headers=headers, body=_bytes(body or b""), seconds=SECONDS)


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any, **__: Any) -> Sequence[bytes]:
        return [self._body]


def send(integration: Integration, secrets: Mapping[str, object], messages: Sequence[OutboxMessage]) -> Outcome:
    """Store the batch as one object, whose name is the batch's: sent twice, it is there once. Raises NotSent."""
    config, wire = integration.config, _Wire()
    lines = "".join(f"{message.envelope(integration)}\n" for message in messages)
    try:
        client = _client(config, secrets, wire)
        client.put_object(
            Bucket=config["bucket"],
            Key=key_of(config["key_prefix"], messages[0].batch),
            Body=lines.encode(),
            ContentType="application/x-ndjson",
        )
    except (ClientError, BotoCoreError) as error:
        if wire.reply is None:
            raise http_client.NotSent(f"The request could not be made: {error}") from error
    except Exception:
        # The answer counts. One that is not XML, or redirects, can make boto3 raise anything.
        if wire.reply is None:
            raise
    return _outcome(wire.reply)


def key_of(prefix: str, batch: str) -> str:
    """The object's name. A batch is named by its time, as 20261123T150000Z-…, and that gives the date."""
    folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    return f"{folder}{batch[:4]}/{batch[4:6]}/{batch[6:8]}/{batch}.jsonl"


def _outcome(reply: http_client.Reply | None) -> Outcome:
    if reply is None:
        raise http_client.NotSent("The request was not made.")
    outcome = http_client.outcome_of(reply)
    # All batches go to one bucket: what is wrong with one is wrong with all. Nor is a bucket ever gone for good.
    if outcome.result in (Result.REFUSED, Result.GONE):
        return replace(outcome, result=Result.FAILED)
    return outcome


def _client(config: Mapping[str, Any], secrets: Mapping[str, object], wire: _Wire) -> Any:
    # Only Amazon's own names have a host for each bucket.
    style = "auto" if ".amazonaws.com" in config["endpoint"] else "path"
    # A session and credentials of its own: nothing of the machine's own accounts may be used for a customer.
    client = boto3.session.Session(region_name=config["region"]).client(
        "s3",
        endpoint_url=config["endpoint"],
        aws_access_key_id=secrets["access_key_id"],
        aws_secret_access_key=secrets["secret_access_key"],
        config=Config(s3={"addressing_style": style}, **_CONFIG),
    )
    client.meta.events.register("before-send.s3", wire.carry)
    return client


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | bytearray) else str(value).encode()
