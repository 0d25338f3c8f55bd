"""A lockdown on a runner, told by webhook, Slack and S3 at once, and seen on the pages: real servers at every end."""

import json
from datetime import timedelta

import boto3
import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from moto.server import ThreadedMotoServer

from policystore.accounts.roles import Role
from policystore.integrations import delivery
from policystore.integrations.models import OutboxMessage
from policystore.runners.models import JobRun
from tests import factories
from tests.integrations.conftest import loopback
from tests.integrations.receivers import receiver
from tests.runners.asking import ask

__all__ = ["loopback"]

pytestmark = pytest.mark.django_db

JOB = "/v1/github/octo-org/hello-world/actions"
KEYS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret", "region_name": "eu-central-1"}


@pytest.fixture(scope="module")
def s3():
    """An S3 endpoint with one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=address, **KEYS)
    client.create_bucket(Bucket="audit-log", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    yield address, client
    client.close()
    server.stop()


def deliver_all():
    for _ in range(3):
        OutboxMessage.objects.filter(state="pending").update(next_at=timezone.now() - timedelta(seconds=1))
        delivery.deliver_due()


def test_a_lockdown_reaches_everybody_who_wants_it(loopback, s3):
    address, client = s3
    organization = factories.organization("octo-org")
    with receiver() as webhook, receiver() as slack:
        hook = factories.integration(organization, config={"address": webhook.url, "method": "POST", "raw": False})
        factories.integration(
            organization, "slack", name="slack", config={"channel": ""}, secrets={"webhook_url": slack.url}
        )
        bucket = {"bucket": "audit-log", "region": "eu-central-1", "endpoint": address, "key_prefix": "octo"}
        secrets = {"access_key_id": KEYS["aws_access_key_id"], "secret_access_key": KEYS["aws_secret_access_key"]}
        factories.integration(organization, "s3", name="archive", config=bucket, secrets=secrets)

        ask("POST", f"{JOB}/runs/7/monitor", {}, {"correlation_id": "arc-1", "job": "build"})
        headers = {"authorization": f"vm-api-key {factories.api_key(organization)}"}
        found = {"id": "Reverse-Shell", "detection": "bash to 192.0.2.9", "is_lockdown": True, "process": "bash"}
        assert ask("POST", f"{JOB}/jobs/arc-1/detections", headers, [found]).json()["stored"] == 1
        deliver_all()

        [call] = webhook.calls
        told = call.verified(hook.secrets["signing"])
        assert (told["type"], told["data"]["id"], told["data"]["is_lockdown"]) == ("lockdown", "Reverse-Shell", True)
        assert json.loads(slack.calls[0].body)["text"].startswith("*Lockdown ended a job:*")
    listed = client.list_objects_v2(Bucket="audit-log", Prefix="octo/")["Contents"]
    stored = client.get_object(Bucket="audit-log", Key=listed[0]["Key"])["Body"].read().decode()
    assert json.loads(stored.splitlines()[0])["data"]["id"] == "Reverse-Shell"
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {"delivered"}

    owner = Client()
    owner.force_login(factories.member(organization, Role.OWNER), backend="policystore.accounts.access.RoleBackend")
    page = owner.get(reverse("detections:list", args=["octo-org"])).content.decode()
    assert "Job terminated" in page
    run = JobRun.objects.get()
    assert owner.get(reverse("runs:run", args=["octo-org", run.pk])).status_code == 200
