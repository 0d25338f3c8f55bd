"""Lists as CSV: the same rows and permission as the page, all of them, safe to open in a spreadsheet."""

import csv
import io

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.roles import Role
from policystore.detections.models import Detection
from policystore.inventory import actions as inventory
from policystore.runners.models import JobRun
from policystore.traffic.models import JobEndpoint, NetworkEvent
from policystore.web import csv_export, pagination
from tests import factories

pytestmark = pytest.mark.django_db

LISTS = {
    "policies:list": ("name", "=policy-{}"),
    "runs:list": ("job", "=job-{}"),
    "coverage": ("workflow", "=file-{}.yml"),
    "detections:list": ("process", "=process-{}"),
    "network-events": ("process", "=process-{}"),
    "baseline:organization": ("host", "host-{}.example"),
    "baseline:repositories": ("repository", "=repository-{}"),
    "baseline:jobs": ("job", "=job-{}"),
}


def fill(organization, number=3):
    """The same number of everything; most names would be formulas in a spreadsheet."""
    now = timezone.now()
    repository = inventory.add_repository(organization=organization, name="shop")
    for i in range(number):
        policy = factories.policy(organization, f"policy-{i}")
        policy.name = f"=policy-{i}"
        policy.save()
        inventory.add_workflow(repository=repository, file_name=f"=file-{i}.yml")
        names = {"repository": f"=repository-{i}", "workflow": "ci.yml", "job": f"=job-{i}"}
        run = JobRun.objects.create(
            organization=organization,
            run_id=str(i),
            correlation_id=str(i),
            verified_by="key",
            first_seen_at=now,
            **names,
        )
        shared = {"organization": organization, "host": f"host-{i}.example", "port": 443}
        JobEndpoint.objects.create(
            **shared, **names, calls=1, blocked_calls=0, runs=1, first_seen_at=now, last_seen_at=now
        )
        NetworkEvent.objects.create(
            **shared,
            job_run=run,
            digest="a",
            status="blocked",
            process=f"=process-{i}",
            occurred_at=now,
            received_at=now,
        )
        Detection.objects.create(
            **shared, job_run=run, digest="a", detection_id="Domain-Blocked", process=f"=process-{i}", at=now
        )


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.AUDITOR)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def export(client, name, **query):
    return client.get(reverse(name, args=["octo-org"]), {**query, "format": "csv"})


def rows(response):
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith("attachment; ")
    return list(csv.DictReader(io.StringIO(response.getvalue().decode())))


@pytest.mark.parametrize("name", LISTS)
def test_every_row_is_exported_and_none_of_another_organization(organization, ann, name, monkeypatch):
    monkeypatch.setattr(pagination, "EXPORTED_AT_A_TIME", 2)
    fill(organization)
    fill(factories.organization("other-org"), number=5)
    column, value = LISTS[name]
    exported = {row[column] for row in rows(export(ann, name))}
    names = {value.format(number) for number in range(3)}
    assert exported == {f"'{text}" if text.startswith("=") else text for text in names}


def test_the_file_has_the_filters_of_the_list(organization, ann):
    fill(organization)
    assert [row["name"] for row in rows(export(ann, "policies:list", q="policy-1"))] == ["'=policy-1"]
    assert [row["job"] for row in rows(export(ann, "runs:list", q="job-2"))] == ["'=job-2"]
    assert rows(export(ann, "runs:list", tag="blocked")) == []
    assert [row["process"] for row in rows(export(ann, "detections:list", q="host-1", status="all"))] == ["'=process-1"]
    assert len(rows(export(ann, "network-events", tab="blocked"))) == 3
    assert rows(export(ann, "network-events", tab="new")) == []
    assert [row["host"] for row in rows(export(ann, "baseline:organization", q="host-0"))] == ["host-0.example"]


@pytest.mark.parametrize("name", LISTS)
def test_each_list_links_to_its_file(organization, ann, name):
    fill(organization)
    page = ann.get(reverse(name, args=["octo-org"]), {"before": "", "after": ""}).content.decode()
    assert 'href="?format=csv"' in page


@pytest.mark.parametrize("name", ["policies:list", "runs:list", "network-events"])
def test_a_file_that_takes_too_long_is_refused_with_a_message(organization, ann, name, monkeypatch):
    fill(organization)
    write = csv_export.in_file
    monkeypatch.setattr(csv_export, "in_file", lambda texts, seconds: write(texts, seconds=0))
    response = export(ann, name)
    assert (response.status_code, response["Content-Type"]) == (503, "text/plain; charset=utf-8")
    assert "Filter the list" in response.content.decode()


def test_cells_keep_their_values():
    texts = csv_export.lines(["a", "b"], [['x,\n"y', ["1", "2"]], [None, {"k": "ö"}], ["\t1", "+1"]])
    assert list(csv.reader(io.StringIO("".join(texts)))) == [
        ["a", "b"],
        ['x,\n"y', "1\n2"],
        ["", '{"k": "ö"}'],
        ["'\t1", "'+1"],
    ]
