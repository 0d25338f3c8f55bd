"""The number of new detections beside their entry in the sidebar."""

import re

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.detections.models import Detection
from policystore.runners.models import JobRun
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("number", "shown"), [(0, []), (3, ["3"]), (99, ["99"]), (120, ["99+"])])
def test_new_detections_are_counted_up_to_99(number, shown):
    organization = factories.organization("octo-org")
    client = Client()
    client.force_login(factories.member(organization), backend="policystore.accounts.access.RoleBackend")
    now = timezone.now()
    run = JobRun.objects.create(organization=organization, correlation_id="c", first_seen_at=now, verified_by="key")
    statuses = [Detection.Status.NEW] * number + [Detection.Status.RESOLVED]
    Detection.objects.bulk_create(
        Detection(
            organization=organization,
            job_run=run,
            digest=str(index),
            detection_id="Domain-Blocked",
            status=status,
            at=now,
        )
        for index, status in enumerate(statuses)
    )
    page = client.get(reverse("policies:list", args=["octo-org"])).content.decode()
    assert re.findall(r'<span class="nav-count">(.*?)</span>', page) == shown
