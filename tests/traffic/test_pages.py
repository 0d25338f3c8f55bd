"""The pages of runs and baselines, and the way from a baseline into a policy."""

import json
import re
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import SYSTEM, Actor
from policystore.accounts.roles import Role
from policystore.detections import actions
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policies.models import Policy
from policystore.policy_language.document import written_endpoints
from policystore.policy_language.scopes import Scope
from policystore.runners import by_endpoint
from policystore.runners.models import JobRun
from policystore.traffic import baseline
from policystore.traffic.baseline import BaselineScope
from policystore.traffic.event_parser import parse
from policystore.traffic.models import NOTEWORTHY, NetworkEvent
from tests import factories
from tests.plans import plans
from tests.runners.asking import ask

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


def job_run(organization, number, *, repository="hello-world", workflow="ci.yml", job="build", **values):
    return JobRun.objects.create(
        verified_by=values.pop("verified_by", "key"),
        organization=organization,
        repository=repository,
        workflow=workflow,
        job=job,
        run_id=str(number),
        correlation_id=f"correlation-{number}",
        first_seen_at=values.pop("at", timezone.now()),
        **values,
    )


def observe(run, *hosts, **more):
    seen = [
        parse("networkconnection", {"domainName": host, "ipAddress": "192.0.2.1", "port": "443", "n": number, **more})
        for number, host in enumerate(hosts)
    ]
    return actions.observe(run=run, events=seen, received_at=run.first_seen_at + timedelta(minutes=1))


def address(name, *arguments):
    return reverse(name, args=["octo-org", *arguments])


def test_runs_are_newest_first_and_narrowed_by_tag_and_search(organization, ann):
    quiet = job_run(organization, 1)
    observe(quiet, "github.com")
    loud = job_run(organization, 2, repository="other", policy_id=7, policy_name="ci", egress_policy="block")
    observe(loud, "evil.example", status="Dropped")
    page = ann.get(address("runs:list")).content.decode()
    assert page.index("other/ci.yml") < page.index("hello-world/ci.yml")
    blocked = ann.get(address("runs:list"), {"tag": "blocked"}).content.decode()
    assert ("other/ci.yml" in blocked, "hello-world/ci.yml" in blocked) == (True, False)
    found = ann.get(address("runs:list"), {"q": "hello"}).content.decode()
    assert ("other/ci.yml" in found, "hello-world/ci.yml" in found) == (False, True)
    fragment = ann.get(address("runs:list"), headers={"HX-Request": "true", "HX-Target": "runs"}).content.decode()
    assert "<html" not in fragment
    assert ann.get(address("runs:list"), {"before": "nonsense", "tag": "x", "q": "\0"}).status_code == 200


def test_runs_of_one_repository_or_workflow(organization, ann):
    job_run(organization, 1, repository="Hello-World", workflow="ci & cd.yml")
    job_run(organization, 2, repository="Hello-World", workflow="release.yml")
    last = job_run(organization, 3, repository="hello-world-two", workflow="ci & cd.yml")

    def runs(**query):
        return [run.run_id for run in ann.get(address("runs:list"), query).context["page"].rows]

    assert runs(repository="hello-world") == ["2", "1"]
    assert runs(repository="hello-world", workflow="ci & cd.yml") == ["1"]
    assert runs(repository="nothing") == []
    page = ann.get(address("runs:run", last.pk)).content.decode()
    link = re.search(r'href="([^"]+)">of this workflow', page).group(1).replace("&amp;", "&")
    listed = ann.get(link)
    assert [run.run_id for run in listed.context["page"].rows] == ["3"]
    assert "hello-world-two/ci &amp; cd.yml</strong>" in listed.content.decode()


def test_runs_are_paged_by_keyset(organization, ann):
    for number in range(55):
        job_run(organization, number)
    page = ann.get(address("runs:list"))
    assert len(page.context["page"].rows) == 50
    older = ann.get(address("runs:list") + page.context["next_query"])
    assert [run.run_id for run in older.context["page"].rows] == ["4", "3", "2", "1", "0"]


def test_a_runs_page_shows_its_events_by_tab_and_leads_into_the_policy(organization, ann):
    policy = factories.policy(organization, "ci", text="egress-policy: audit\nallowed-endpoints: github.com:443\n")
    run = job_run(organization, 1, policy_id=policy.pk, policy_name="ci", policy_version=1, egress_policy="audit")
    observe(run, "github.com", "stranger.example", step="Build <b>")
    observe(run, "blocked.example", status="Dropped", reason="ioc")
    page = ann.get(address("runs:run", run.pk)).content.decode()
    assert "Build &lt;b&gt;" in page
    for tab, shown in (("blocked", "blocked.example"), ("off-list", "stranger.example")):
        narrowed = ann.get(address("runs:run", run.pk), {"tab": tab}).content.decode()
        assert shown in narrowed
        assert "github.com:443</code>" not in narrowed
    link = re.search(r'href="([^"]+\?add=stranger[^"]+)"', page).group(1)
    editor = ann.get(link.replace("&amp;", "&"))
    assert written_endpoints(editor.context["form"]["text"].value()) == ["github.com:443", "stranger.example:443"]
    assert Policy.objects.get().version == 1


def test_a_call_names_and_links_what_was_responsible(organization, ann):
    policy = factories.policy(organization, "ci", text="egress-policy: block\nallowed-endpoints: github.com:443\n")
    given = {"policy_id": policy.pk, "policy_name": "ci", "policy_version": 1, "egress_policy": "block"}
    run = job_run(organization, 1, **given)
    observe(run, "stopped.example", status="Dropped")
    observe(run, "evil.example", status="Dropped", matched_policy="GLOBAL_BLOCKLIST", reason="ioc")
    observe(run, "slipped.example")
    decided = f'href="{address("policies:version", policy.pk, 1)}"'
    for page in (address("runs:run", run.pk), address("network-events")):
        rows = rows_by_host(ann.get(page))
        assert decided in rows["stopped.example"]
        assert "by the <a href" in " ".join(rows["evil.example"].split())
        assert address("runners-settings:blocklist") in rows["evil.example"]
        assert "?add=" not in rows["evil.example"]
        assert "Would be blocked" in rows["slipped.example"]
        assert f'{address("policies:edit", policy.pk)}?add=slipped.example%3A443"' in rows["slipped.example"]
    Policy.objects.filter(pk=policy.pk).delete()
    row = rows_by_host(ann.get(address("runs:run", run.pk)))["stopped.example"]
    assert decided in row
    assert f'{address("policies:new")}?add=stopped.example%3A443"' in row


def rows_by_host(page):
    rows = page.content.decode().split("<tbody>")[-1].split("</tr>")
    return {match.group(1): row for row in rows if (match := re.search(r"<code>([^:<]+):", row))}


def test_an_endpoint_of_a_job_without_a_policy_begins_one(organization, ann):
    run = job_run(organization, 1)
    observe(run, "github.com", "ghcr.io")
    page = ann.get(address("runs:run", run.pk)).content.decode()
    link = re.search(r'href="([^"]+/new/\?add=ghcr[^"]+)"', page).group(1).replace("&amp;", "&")
    assert written_endpoints(ann.get(link).context["form"]["text"].value()) == ["ghcr.io:443"]
    link = re.search(r'href="([^"]+/create-policy/[^"]+)"', page).group(1).replace("&amp;", "&")
    assert written_endpoints(ann.get(link).context["form"]["text"].value()) == ["ghcr.io:443", "github.com:443"]


def test_very_many_events_of_a_run_are_paged_by_keyset(organization, ann):
    run = job_run(organization, 1)
    for part in range(3):
        observe(run, *(f"h{part}-{number:03}.example" for number in range(90)))
    seen, query = [], ""
    while True:
        page = ann.get(address("runs:run", run.pk) + query)
        seen += [event.host for event in page.context["page"].rows]
        query = page.context["next_query"]
        if not query:
            break
    assert len(seen) == len(set(seen)) == 270
    assert ann.get(address("runs:run", run.pk), {"before": "nonsense"}).status_code == 200


def test_a_wrong_clock_is_told_beside_the_corrected_time(organization, ann):
    run = job_run(organization, 1)
    observe(run, "github.com", timestamp="2031-05-06T07:08:09Z")
    assert "The runner's clock said 2031-05-06 07:08:09" in ann.get(address("runs:run", run.pk)).content.decode()


def test_network_events_of_all_jobs_are_narrowed_by_tab(organization, ann):
    policy = factories.policy(organization, "ci", text="egress-policy: audit\nallowed-endpoints: github.com:443\n")
    given = {"policy_id": policy.pk, "policy_name": "ci", "policy_version": 1, "egress_policy": "audit"}
    observe(job_run(organization, 1, **given), "github.com", "stranger.example")
    observe(job_run(organization, 2, repository="other"), "blocked.example", status="Dropped")
    observe(job_run(organization, 3, **given), "github.com", "fresh.example")
    factories.organization("elsewhere")

    def hosts(**query):
        return set(rows_by_host(ann.get(address("network-events"), query)))

    assert hosts() == {"stranger.example", "blocked.example", "fresh.example"}
    assert hosts(tab="blocked") == {"blocked.example"}
    assert hosts(tab="new") == {"fresh.example"}
    assert hosts(tab="off-list") == {"stranger.example", "fresh.example"}
    fragment = ann.get(address("network-events"), headers={"HX-Request": "true", "HX-Target": "events"})
    assert "<html" not in fragment.content.decode()
    insights = ann.get(address("insights")).content.decode()
    assert f'href="{address("network-events")}">Network Events</a>' in insights


def test_network_events_are_grouped_by_endpoint_with_links_to_their_events(organization, ann):
    for number, workflow in enumerate(["ci.yml", "ci.yml", "release.yml"]):
        run = job_run(organization, number, workflow=workflow)
        observe(run, "evil.example", "evil.example", "rare.example", status="Dropped")
    observe(job_run(organization, 9, verified_by=""), "evil.example", status="Dropped")
    elsewhere = factories.organization("elsewhere")
    observe(job_run(elsewhere, 1), "evil.example", status="Dropped")
    observe(job_run(organization, 10), "late.example", status="Dropped")

    groups = ann.get(address("network-events"), {"tab": "blocked", "by": "endpoint"})
    counted = [(group["host"], group["rows"], group["workflows"]) for group in groups.context["page"].rows]
    assert counted == [("late.example", 1, 1), ("rare.example", 3, 2), ("evil.example", 6, 2)]
    link = re.search(r'href="([^"]*evil[^"]*)"', groups.content.decode()).group(1).replace("&amp;", "&")
    events = ann.get(address("network-events") + link).context["events"]
    assert [(event.host, event.status) for event, _, _ in events] == [("evil.example", "blocked")] * 6
    assert ann.get(address("network-events"), {"tab": "new", "by": "endpoint"}).context["page"].rows == []
    for nonsense in ("x", "evil.example", f"evil.example:{10**30}", ":"):
        assert ann.get(address("network-events"), {"endpoint": nonsense}).context["events"] == []


def test_groups_of_events_go_on_on_the_next_page_and_read_an_index(organization, ann, monkeypatch):
    monkeypatch.setattr(by_endpoint, "PAGE_SIZE", 2)
    observe(job_run(organization, 1), "a.example", "b.example", "c.example", status="Dropped")
    first = ann.get(address("network-events"), {"by": "endpoint"})
    second = ann.get(address("network-events") + first.context["next_query"])
    assert [[group["host"] for group in page.context["page"].rows] for page in (first, second)] == [
        ["c.example", "b.example"],
        ["a.example"],
    ]
    rows = NetworkEvent.objects.filter(NOTEWORTHY, organization=organization)
    # On PostgreSQL, each day has an index of its own.
    index = {"sqlite": "event_noteworthy", "postgresql": "organization_id_id_idx"}[connection.vendor]
    for plan in plans(lambda: by_endpoint.group_page(rows, among=rows, time="occurred_at")):
        assert index in plan


def test_the_four_views_of_a_baseline(organization, ann):
    observe(job_run(organization, 1), "github.com", "ghcr.io")
    observe(job_run(organization, 2, repository="other", job="test", cluster="k8s"), "github.com")
    observe(job_run(organization, 3, repository="third"), "never.example", status="Dropped")
    whole = ann.get(address("baseline:organization"))
    assert [(e.host, e.runs, e.jobs) for e in whole.context["page"].rows] == [("ghcr.io", 1, 1), ("github.com", 2, 2)]
    assert "never.example" not in whole.content.decode()
    for name, label in (("repositories", "hello-world"), ("clusters", "k8s"), ("jobs", "other/ci.yml · test on k8s")):
        page = ann.get(address(f"baseline:{name}"))
        assert label in page.content.decode()
        link = next(item.scope.query for item, _ in page.context["items"] if item.scope.label == label)
        assert ann.get(f"{address('baseline:view')}{link}").status_code == 200
    job = ann.get(
        address("baseline:view"),
        {"of": "job", "repository": "Other", "workflow": "ci.yml", "job": "test", "cluster": "k8s"},
    )
    assert [endpoint.host for endpoint in job.context["page"].rows] == ["github.com"]
    assert ann.get(address("baseline:view"), {"of": "job"}).status_code == 404


def test_stability_follows_the_runs_since_the_last_change(organization, settings):
    settings.BASELINE_STABLE_RUNS, settings.BASELINE_UNSTABLE_RUNS = 4, 2
    began = timezone.now() - timedelta(days=10)

    def state():
        return baseline.stability(organization, BaselineScope()).state

    number = 0

    def run(*hosts):
        nonlocal number
        number += 1
        observe(job_run(organization, number, at=began + timedelta(hours=number)), *hosts)

    run("github.com")
    assert state() == "creating"
    for _ in range(4):
        run("github.com")
    assert state() == "stable"
    run("github.com", "fresh.example")
    assert state() == "unstable"
    for _ in range(2):
        run("github.com")
    assert state() == "creating"
    for _ in range(2):
        run("github.com")
    assert state() == "stable"


def test_what_is_exported_can_be_imported_again(organization, ann):
    observe(job_run(organization, 1), "github.com", "ghcr.io", "192.0.2.7")
    exported = ann.get(address("baseline:export"))
    assert exported.content == b"# 192.0.2.7:443\nghcr.io:443\ngithub.com:443\n"
    carried = {"name": "fresh", "text": "egress-policy: block # ours\nallowed-endpoints: github.com:443\n"}
    upload = SimpleUploadedFile("endpoints.txt", exported.content)
    page = ann.post(address("baseline:import"), {**carried, "source": "file", "file": upload, "show": "1"})
    assert [(row.endpoint, row.is_new) for row in page.context["rows"]] == [
        ("ghcr.io:443", True),
        ("github.com:443", False),
    ]
    editor = ann.post(address("policies:new"), {**carried, "add": ["", "ghcr.io:443"]})
    text = editor.context["form"]["text"].value()
    assert text.startswith("egress-policy: block # ours\n")
    assert written_endpoints(text) == ["github.com:443", "ghcr.io:443"]
    assert not Policy.objects.exists()


@pytest.mark.parametrize(
    ("source", "target", "hosts"),
    [
        ("organization", "", ["ghcr.io:443", "github.com:443"]),
        ("repository", "hello-world", ["github.com:443"]),
        ("cluster", "k8s", ["ghcr.io:443"]),
        ("job", "hello-world\nci.yml\nbuild\n", ["github.com:443"]),
    ],
)
def test_each_source_of_an_import(organization, ann, source, target, hosts):
    observe(job_run(organization, 1), "github.com")
    observe(job_run(organization, 2, repository="other", cluster="k8s"), "ghcr.io")
    form = {"source": source, f"target_{source}": target, "show": "1", "text": "", "version": "", "policy": ""}
    page = ann.post(address("baseline:import"), form)
    assert [row.endpoint for row in page.context["rows"]] == hosts


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * 300_000])
def test_a_file_that_cannot_be_read_is_refused(organization, ann, content):
    upload = SimpleUploadedFile("endpoints.txt", content)
    page = ann.post(address("baseline:import"), {"source": "file", "file": upload, "show": "1", "text": "kept"})
    assert page.status_code == 422
    assert "kept" in page.content.decode()


def test_lines_of_a_file_that_are_no_endpoints_are_left_out_and_named(organization, ann):
    upload = SimpleUploadedFile("endpoints.txt", b"github.com:443\nhttps://github.com/x\nghcr.io:abc\nquay.io\n")
    page = ann.post(address("baseline:import"), {"source": "file", "file": upload, "show": "1", "text": ""})
    assert page.status_code == 200
    assert [row.endpoint for row in page.context["rows"]] == ["github.com:443", "quay.io:443"]
    shown = page.content.decode()
    assert "2 entries were left out of the import" in shown
    assert "Line 2: " in shown
    assert "Line 3: " in shown


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "Choose where to import endpoints from."),
        ({"source": "repository"}, "Choose an entry under “Repository”, or another source."),
        ({"source": "cluster"}, "Choose an entry under “ARC Cluster”, or another source."),
        ({"source": "file"}, "Choose a file with one endpoint per line."),
    ],
)
def test_an_import_says_which_choice_is_missing(organization, ann, form, said):
    observe(job_run(organization, 1), "github.com")
    opened = ann.post(address("baseline:import"), {**form, "text": "kept"})
    assert (opened.status_code, said in opened.content.decode()) == (200, False)
    # Every source's targets are there at once.
    assert '<option value="hello-world"' in opened.content.decode()
    asked = ann.post(address("baseline:import"), {**form, "text": "kept", "show": "1"})
    assert (asked.status_code, said in asked.content.decode()) == (422, True)


def test_editors_complete_the_endpoints_and_sets_of_their_organization(organization, ann):
    theirs = factories.organization("theirs")
    for owner, host, name in ((organization, "github.com", "ours"), (theirs, "theirs.example", "foreign")):
        observe(job_run(owner, 1), host)
        factories.endpoint_set(owner, name)
    words = ann.get(address("baseline:words")).json()
    assert words["allowed-endpoints"] == ["github.com:443"]
    assert words["endpoint-sets"] == ["ours"]
    assert words["egress-policy"] == ["audit", "block"]
    assert all(isinstance(values, list) for values in words.values())
    assert "Reverse-Shell" in words["detections"]
    assert "lockdown-mode:" in words[""]


def test_leaving_the_import_keeps_the_draft(organization, ann):
    draft = {
        "name": "n",
        "description": "d",
        "text": "egress-policy: audit\n",
        "add": ["", "x.example:443"],
        "leave": "1",
    }
    editor = ann.post(address("policies:new"), draft)
    assert editor.context["form"]["text"].value() == "egress-policy: audit\n"
    assert editor.context["form"]["name"].value() == "n"


def test_a_policy_is_begun_from_a_baseline(organization, ann):
    editor = ann.post(address("policies:new"), {"text": "", "add": ["github.com:443", "*.ghcr.io:443"]})
    assert editor.status_code == 200
    text = editor.context["form"]["text"].value()
    assert text == "egress-policy: audit\nallowed-endpoints: >\n  github.com:443\n  *.ghcr.io:443\n"
    assert not Policy.objects.exists()


def test_the_baseline_over_the_api(organization):
    observe(job_run(organization, 1), "github.com", "ghcr.io")
    key = factories.management_key(organization)
    answer = ask("GET", "/v1/github/octo-org/actions/baseline?search=ghcr", {"authorization": f"Bearer {key}"}).json()
    assert (answer["data"]["owner"], answer["data"]["total_workflow_runs"]) == ("octo-org", 1)
    endpoint = answer["data"]["endpoints"][0]
    assert (endpoint["endpoint"], endpoint["total_calls"]) == ("ghcr.io:443", 1)
    assert endpoint["endpoint_observations"][0]["repo"] == "octo-org/hello-world"
    plain = ask("GET", "/v1/github/octo-org/hello-world/baseline", {"authorization": key})
    assert plain.json() == {"endpoints": [{"endpoint": "ghcr.io:443"}, {"endpoint": "github.com:443"}]}
    runner = factories.api_key(organization)
    foreign = factories.management_key(factories.organization("other"))
    for headers, status in (({}, 401), ({"authorization": runner}, 403), ({"authorization": foreign}, 403)):
        assert ask("GET", "/v1/github/octo-org/hello-world/baseline", headers).status == status


def test_the_baseline_over_the_api_tells_of_runs_however_long_ago(organization):
    observe(job_run(organization, 1), "old.example")
    for number in range(2, 9):
        observe(job_run(organization, number), "github.com")
    headers = {"authorization": f"Bearer {factories.management_key(organization)}"}
    answer = ask("GET", "/v1/github/octo-org/actions/baseline", headers).json()
    runs = {e["endpoint"]: [o["run_id"] for o in e["endpoint_observations"]] for e in answer["data"]["endpoints"]}
    assert runs == {"github.com:443": ["8", "7", "6", "5", "4"], "old.example:443": ["1"]}


def test_prune_is_a_command_too(organization, capsys):
    observe(job_run(organization, 1, at=timezone.now() - timedelta(days=40)), "github.com")
    observe(job_run(organization, 2), "github.com")
    call_command("prune")
    assert "Deleted 1 network event." in capsys.readouterr().out
    assert NetworkEvent.objects.count() == 1


def test_an_exemption_from_lockdown_is_shown_where_it_applies(organization, ann):
    lockdown = "egress-policy: audit\nlockdown-mode:\n  enabled: true\n  detections:\n    - Reverse-Shell\n"
    wide = factories.policy(organization, "arc-lockdown", text=lockdown)
    narrow = factories.policy(organization, "builds", text="lockdown-mode:\n  enabled: false\n")
    for policy, scope in (
        (wide, Scope.for_cluster("octo-org", "k8s")),
        (narrow, Scope.for_repository("octo-org", "hello-world")),
    ):
        attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=SYSTEM)
    given = {"policy_id": narrow.pk, "policy_name": "builds", "policy_version": 1, "egress_policy": "audit"}
    run = job_run(organization, 1, cluster="k8s", scope_key="repository:octo-org/hello-world", **given)
    assert "builds switches off the lockdown that" in ann.get(address("runs:run", run.pk)).content.decode()
    elsewhere = job_run(organization, 2, cluster="other", **given)
    assert "switches off" not in ann.get(address("runs:run", elsewhere.pk)).content.decode()
    assert "Exemption" in ann.get(address("policies:view", narrow.pk)).content.decode()
    assert "Reverse-Shell" in ann.get(address("policies:view", wide.pk)).content.decode()
    edited = json.dumps({**json.loads(wide.reply), "lockdown": True})
    Policy.objects.filter(pk=wide.pk).update(reply=edited)
    answer = ann.get(address("runs:run", run.pk))
    assert (answer.status_code, "switches off" in answer.content.decode()) == (200, False)


def test_wildcards_are_suggested_where_hosts_share_a_suffix(organization, ann):
    observe(job_run(organization, 1), "a.cdn.example.com", "b.cdn.example.com", "c.cdn.example.com", "github.com")
    page = ann.get(address("baseline:organization"), {"show": "wildcards"}).content.decode()
    assert "*.cdn.example.com:443" in page
    chosen = ann.post(address("baseline:import"), {"source": "organization", "show": "1", "text": ""}).content.decode()
    assert re.search(r'type="checkbox" name="add" value="\*\.cdn\.example\.com:443">', chosen)


def test_a_policys_page_says_what_it_does_and_how_the_last_runs_used_it(organization, ann):
    policy = factories.policy(organization, "ci", text="egress-policy: block\nallowed-endpoints: github.com:443\n")
    given = {"policy_id": policy.pk, "policy_name": "ci", "policy_version": 1, "egress_policy": "block"}
    observe(job_run(organization, 1, **given), "evil.example", status="Dropped")
    observe(job_run(organization, 2), "github.com")
    page = ann.get(address("policies:view", policy.pk)).content.decode()
    assert "applies nowhere until you attach it" in page
    assert address("runs:of-policy", policy.pk) in page
    scopes = [Scope.for_repository("octo-org", "hello-world"), Scope.for_organization("octo-org")]
    attachments.ModifyAttachments(policy=policy, add=scopes).apply(by=Actor("jonas"))
    page = ann.get(address("policies:view", policy.pk)).content.decode()
    assert "blocks every other call in the organization and 1 repository." in page
    assert re.search(r"<dt>Last change</dt>\s*<dd>\s*jonas", page)
    sentence = ann.get(address("runs:of-policy", policy.pk), headers={"HX-Request": "true"}).content.decode()
    assert "1 of the last 2 job runs</a>; 1 call blocked" in " ".join(sentence.split())


def test_insights_tell_calls_by_day_and_how_runs_were_held(organization, ann):
    assert "Nothing observed" in ann.get(reverse("insights", args=["octo-org"])).content.decode()
    given = {"policy_id": 7, "policy_name": "ci", "policy_version": 1, "egress_policy": "block"}
    observe(job_run(organization, 1, **given), "github.com", "ghcr.io")
    observe(job_run(organization, 2, **given), "evil.example", status="Dropped")
    observe(job_run(organization, 3, at=timezone.now() - timedelta(days=3)), "github.com")
    job_run(organization, 4, at=timezone.now() - timedelta(days=60))
    # Its agent reported no call, so nothing proves that the policy was enforced.
    job_run(organization, 5, **given)
    page = ann.get(reverse("insights", args=["octo-org"]))
    days = page.context["slots"]
    assert len(days) == 30
    assert (days[-1].allowed, days[-1].blocked, days[-1].runs) == (2, 1, 3)
    assert (days[-4].allowed, days[-4].runs) == (1, 1)
    assert sum(number for _, number in page.context["fresh"]) == 2
    enforcement = page.context["enforcement"]
    assert (enforcement["runs"], enforcement["enforced"], enforcement["without_policy"]) == (4, 2, 1)
    assert page.content.decode().count('<rect class="chart-area"') == 90
    hours = ann.get(reverse("insights", args=["octo-org"]), {"period": "24h"}).context
    assert len(hours["slots"]) == 24
    assert (hours["slots"][-1].runs, hours["enforcement"]["runs"]) == (3, 3)
    assert [(row["host"], row["blocked"], row["runs"]) for row in hours["top_blocked"]] == [("evil.example", 1, 1)]
    assert [(row["workflow"], row["blocked"]) for row in hours["needing_attention"]] == [("ci.yml", 1)]
    enforcing = ann.get(reverse("runs:list", args=["octo-org"]), {"tag": "enforcing"}).context["page"].rows
    assert len(enforcing) == enforcement["enforced"]


@pytest.mark.parametrize("sort", ["", "calls", "runs", "jobs", "last", "nonsense"])
def test_endpoints_of_a_baseline_are_sorted_over_all_pages(organization, ann, monkeypatch, sort):
    monkeypatch.setattr(baseline, "PAGE_SIZE", 2)
    hosts = [f"{letter}.example" for letter in "abcde"]
    for number in range(1, 6):
        run = job_run(organization, number, job=f"job-{number}", at=timezone.now() - timedelta(hours=10 - number))
        observe(run, *hosts[: 6 - number])
    shown, query = [], f"?sort={sort}"
    while query:
        response = ann.get(address("baseline:organization") + query)
        shown += [endpoint.host for endpoint in response.context["page"].rows]
        query = response.context["next_query"]
    assert shown == hosts


def test_a_run_leads_to_its_run_on_github(organization, ann, settings):
    settings.GITHUB_URL = "https://github.example"
    run = job_run(organization, 7, repository="hello world")
    page = ann.get(address("runs:run", run.pk)).content.decode()
    assert 'href="https://github.example/octo-org/hello%20world/actions/runs/7"' in page


def test_a_run_of_a_deleted_policy_leads_to_its_history(organization, ann):
    policy = factories.policy(organization, "short-lived")
    job_run(organization, 1, policy_id=policy.pk, policy_name=policy.name, policy_version=1)
    link = address("policies:view", policy.pk)
    assert f'href="{link}">short-lived</a>' in ann.get(address("runs:list")).content.decode()
    assert ann.get(link).status_code == 200
    policies.DeletePolicy(policy=policy).apply(by=SYSTEM)
    assert ann.get(link).headers["Location"] == address("policies:history", policy.pk)
