"""Baselines with many rows: paged, searched, and turned into policies whole."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.roles import Role
from policystore.policy_language.document import written_endpoints
from policystore.runners.models import JobRun
from policystore.traffic.aggregates import MARKS
from policystore.traffic.models import JobEndpoint
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.SECURITY_ADMIN)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def address(name, *arguments):
    return reverse(name, args=["octo-org", *arguments])


def endpoint(organization, host, *, repository="hello-world", job="build", port=443, **values):
    at = values.pop("at", timezone.now())
    said = {"workflow": "ci.yml", "cluster": "", "calls": 1, "blocked_calls": 0, "runs": 1, **values}
    said |= {"cluster_runs": said["runs"], "repository_runs": said["runs"]}
    return JobEndpoint(
        organization=organization,
        repository=repository,
        job=job,
        host=host,
        port=port,
        first_seen_at=at,
        last_seen_at=at,
        **said,
    )


def job_run(organization, number, **values):
    said = {
        "repository": "Hello-World",
        "workflow": "ci.yml",
        "job": "build",
        "calls": 1,
        "verified_by": "key",
        **dict.fromkeys(MARKS, True),
    } | values
    return JobRun(
        organization=organization,
        run_id=str(number),
        correlation_id=str(number),
        first_seen_at=said.pop("at", timezone.now()),
        **said,
    )


def walk(client, target, rows, query=""):
    """The rows of all pages, one after the other."""
    found = []
    while True:
        page = client.get(target + query)
        found += rows(page)
        query = page.context["next_query"]
        if not query:
            return found
        assert page.context["first_query"] or not found[100:]


@pytest.mark.parametrize(
    ("name", "many", "labels"),
    [
        ("repositories", {"repository": "repo-{:03}"}, [f"repo-{n:03}" for n in range(230)]),
        ("clusters", {"cluster": "k8s-{:03}"}, [f"k8s-{n:03}" for n in range(230)]),
        ("jobs", {"job": "job {:03}"}, [f"hello-world/ci.yml · job {n:03}" for n in range(230)]),
    ],
)
def test_the_lists_are_paged_by_keyset(organization, ann, name, many, labels):
    [(field, pattern)] = many.items()
    rows = [endpoint(organization, "github.com", **{field: pattern.format(n)}) for n in range(230)]
    JobEndpoint.objects.bulk_create(rows)
    found = walk(ann, address(f"baseline:{name}"), lambda page: [i.scope.label for i, _ in page.context["items"]])
    assert found == labels
    narrowed = ann.get(address(f"baseline:{name}"), {"q": pattern.format(7)})
    assert [item.scope.label for item, _ in narrowed.context["items"]] == [labels[7]]
    for nonsense in ("x", "W10", "WyJhIiwgImIiXQ", "bnVsbA", "e30"):
        assert ann.get(address(f"baseline:{name}"), {"after": nonsense}).status_code == 200


def test_endpoints_and_changelog_are_paged_by_keyset(organization, ann):
    now = timezone.now()
    hosts = [f"h{n:03}.example" for n in range(130)]
    JobEndpoint.objects.bulk_create(
        [endpoint(organization, host, port=port, at=now - timedelta(minutes=n // 3)) for n, host in enumerate(hosts)
         for port in (80, 443)]
    )  # fmt: skip
    JobEndpoint.objects.bulk_create([endpoint(organization, hosts[5], job="later", at=now + timedelta(hours=1))])
    target = address("baseline:organization")
    found = walk(ann, target, lambda page: [(e.host, e.port) for e in page.context["page"].rows])
    assert found == [(host, port) for host in hosts for port in (80, 443)]
    appeared = walk(ann, target, lambda page: page.context["changelog"].rows, "?show=changelog")
    assert len(appeared) == 260
    times = [appearance.endpoint.first_seen_at for appearance in appeared]
    assert times == sorted(times, reverse=True)
    assert {appearance.job.label for appearance in appeared} == {"hello-world/ci.yml · build"}


def test_create_policy_takes_the_whole_baseline_and_the_chosen_wildcards(organization, ann):
    hosts = [*(f"h{n:03}.cdn.example.com" for n in range(150)), "github.com"]
    JobEndpoint.objects.bulk_create(endpoint(organization, host) for host in hosts)
    JobEndpoint.objects.bulk_create([endpoint(organization, "elsewhere.example", repository="other")])
    page = ann.get(address("baseline:view"), {"repository": "hello-world"})
    link = re.search(r'href="([^"]+/create-policy/[^"]+)"', page.content.decode()).group(1).replace("&amp;", "&")
    editor = ann.get(link)
    assert written_endpoints(editor.context["form"]["text"].value()) == sorted(f"{host}:443" for host in hosts)
    html = editor.content.decode()
    assert f'action="{address("policies:new")}"' in html
    export = re.search(r'href="([^"]+)"\s+download\s*>.*?Export Endpoints', html, re.DOTALL).group(1)
    assert ann.get(export).content.decode().splitlines() == sorted(f"{host}:443" for host in hosts)
    assert "Export Endpoints" not in ann.get(address("policies:new")).content.decode()
    chosen = ann.get(link, {"repository": "hello-world", "wildcard": ["*.cdn.example.com:443", "*.com:443"]})
    assert written_endpoints(chosen.context["form"]["text"].value()) == ["github.com:443", "*.cdn.example.com:443"]


def test_a_baseline_that_is_too_large_for_a_policy_says_so(organization, ann):
    JobEndpoint.objects.bulk_create(endpoint(organization, f"h{n:04}.example.com") for n in range(2010))
    editor = ann.get(address("baseline:create-policy"))
    assert "10 more did not fit" in editor.content.decode()
    assert len(written_endpoints(editor.context["form"]["text"].value())) == 2000


def test_what_no_policy_can_list_is_left_out_and_told(organization, ann):
    hosts = ["192.0.2.7", "2001:db8::7", "%2a", "github.com"]
    JobEndpoint.objects.bulk_create(endpoint(organization, host) for host in hosts)
    editor = ann.get(address("baseline:create-policy"))
    assert written_endpoints(editor.context["form"]["text"].value()) == ["github.com:443"]
    html = editor.content.decode()
    assert "1 endpoint added below" in html
    assert "3 endpoints are left out, which no policy can list" in html
    assert "“192.0.2.7:443” makes the agent stop enforcing" in html
    page = ann.post(address("baseline:import"), {"source": "organization", "show": "1", "text": ""})
    assert [row.is_new for row in page.context["rows"]] == [True, False, False, False]
    assert page.context["rows"][0].endpoint == "github.com:443"
    assert "“192.0.2.7:443” makes the agent stop enforcing" in page.content.decode()


def test_of_many_that_no_policy_can_list_the_first_are_told(organization, ann):
    JobEndpoint.objects.bulk_create(endpoint(organization, f"192.0.2.{n}") for n in range(100, 122))
    html = ann.get(address("baseline:create-policy")).content.decode()
    assert html.count("is an IP address") == 20
    assert "and 2 more" in html


def test_a_ticked_wildcard_stands_for_what_it_covers(organization, ann):
    form = {"text": "egress-policy: audit\n", "add": ["", "a.x.example:443", "b.y.example:443", "*.x.example:443"]}
    editor = ann.post(address("policies:new"), form)
    listed = written_endpoints(editor.context["form"]["text"].value())
    assert listed == ["b.y.example:443", "*.x.example:443"]


def test_an_import_says_what_the_policy_lets_through_already(organization, ann):
    JobEndpoint.objects.bulk_create(
        endpoint(organization, host) for host in ("github.com", "a.cdn.example.com", "new.example")
    )
    text = "egress-policy: block\nallowed-endpoints: github.com:443 *.cdn.example.com:443\n"
    page = ann.post(address("baseline:import"), {"source": "organization", "show": "1", "text": text})
    rows = [(row.endpoint, row.listed, row.verdict == "allowed") for row in page.context["rows"]]
    assert rows == [
        ("a.cdn.example.com:443", False, True),
        ("github.com:443", True, True),
        ("new.example:443", False, False),
    ]
    assert page.context["new"] == 1


def test_any_of_very_many_repositories_can_be_found_to_import_from(organization, ann):
    JobEndpoint.objects.bulk_create(
        endpoint(organization, f"h{n}.example", repository=f"repo-{n:03}") for n in range(250)
    )
    target = address("baseline:import")
    page = ann.post(target, {"source": "repository", "text": ""})
    assert len(page.context["targets"][0].choices) == 200
    assert "search to see others" in page.content.decode()
    narrowed = ann.post(target, {"source": "repository", "target_repository": "repo-000", "find": "249"})
    assert narrowed.context["targets"][0].choices == [("repo-249", "repo-249")]
    assert narrowed.context["rows"] is None
    chosen = {"source": "repository", "target_repository": "repo-249", "find": "249", "show": "1"}
    assert [row.endpoint for row in ann.post(target, chosen).context["rows"]] == ["h249.example:443"]
    assert "Choose an entry under “Job”" in ann.post(target, {**chosen, "source": "job"}).content.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "nonsense", "target_nonsense": "x"},
        {"source": "job", "target_job": "only-one-part"},
        {"source": "repository", "target_repository": "\0x"},
        {"source": "organization", "policy": "9" * 6000},
        {"source": "organization", "policy": "²"},
    ],
)
def test_an_import_of_nonsense_is_no_error(organization, ann, wrong):
    status = 422 if wrong["source"] == "nonsense" else 200
    assert ann.post(address("baseline:import"), {"text": "", "show": "1", **wrong}).status_code == status


def test_stability_is_told_of_each_line(organization, ann, settings):
    settings.BASELINE_STABLE_RUNS, settings.BASELINE_UNSTABLE_RUNS = 6, 3
    now = timezone.now()
    # Stable has seen six runs since its change, unstable one, creating had too few.
    for repository, runs, since in (("Stable", 9, 6), ("Unstable", 9, 1), ("Creating", 4, 4), ("Between", 9, 4)):
        changed = now - timedelta(minutes=since)
        JobEndpoint.objects.bulk_create(
            [endpoint(organization, "github.com", repository=repository.lower(), at=changed)]
        )
        JobRun.objects.bulk_create(
            job_run(organization, f"{repository}{n}", repository=repository, at=now - timedelta(minutes=n, seconds=-30))
            for n in range(runs, 0, -1)
        )
    items = ann.get(address("baseline:repositories")).context["items"]
    assert {item.scope.label: stability.state for item, stability in items} == {
        "stable": "stable",
        "unstable": "unstable",
        "creating": "creating",
        "between": "creating",
    }
