"""Detections: made of traffic and reports, resolved and suppressed, told over the API."""

import json
import re
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from policystore.accounts.models import AccountEvent, Actor
from policystore.accounts.roles import Role
from policystore.detections import actions, rules
from policystore.detections.models import Detection, SuppressionRule
from policystore.integrations.models import Integration, OutboxMessage
from policystore.policies import compiler
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from policystore.runners.models import JobRun
from policystore.runners.protocol import one_time_key
from tests import factories
from tests.runners.asking import ask
from tests.runners.test_recording_beside_others import in_thread

pytestmark = pytest.mark.django_db

ANN = Actor("ann")
JOBS = "/v1/github/octo-org/hello-world/actions/jobs"


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.SECURITY_ADMIN)
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


def job_run(organization, correlation_id="a", **values):
    said = {"repository": "hello-world", "workflow": "ci.yml", "job": "build", "run_id": correlation_id}
    said["verified_by"] = "key"
    return JobRun.objects.create(
        organization=organization, correlation_id=correlation_id, first_seen_at=timezone.now(), **{**said, **values}
    )


def key(correlation_id="a"):
    return {"x-one-time-key": one_time_key("octo-org", "hello-world", correlation_id, run_id=correlation_id)}


def call(host, **more):
    return {"type": "networkconnection", "domainName": host, "ipAddress": "192.0.2.1", "port": "443", **more}


def observe(correlation_id, *calls):
    answer = ask("POST", f"{JOBS}/{correlation_id}/events", key(correlation_id), list(calls))
    assert answer.status == 200
    return answer.json()


def report(correlation_id, *reports):
    answer = ask("POST", f"{JOBS}/{correlation_id}/detections", key(correlation_id), list(reports))
    assert answer.status == 200
    return answer.json()


def address(name, *arguments):
    return reverse(f"detections:{name}", args=["octo-org", *arguments])


def test_a_blocked_call_is_detected_once_for_its_endpoint(organization):
    job_run(organization, policy_id=7, policy_name="ci", policy_version=3)
    observe("a", call("evil.example", status="Dropped", n=1), call("evil.example", status="Dropped", n=2))
    observe("a", call("evil.example", status="Dropped", n=3), call("fine.example"))
    found = Detection.objects.get()
    assert (found.detection_id, found.endpoint, found.status) == ("Domain-Blocked", "evil.example:443", "new")
    assert (found.policy_name, found.policy_version) == ("ci", 3)


def test_detections_are_grouped_by_kind_and_endpoint_with_links_to_their_members(organization, ann):
    for name in ("a", "b"):
        job_run(organization, name, workflow=f"{name}.yml")
        observe(name, call("evil.example", status="Dropped"))
    report("b", {"id": "Reverse-Shell", "detail": "x"}, {"id": "Reverse-Shell", "detail": "y"})
    other = factories.organization("elsewhere")
    Detection.objects.create(
        organization=other, job_run=job_run(other, "c"), digest="d", detection_id="X", at=timezone.now()
    )

    groups = ann.get(address("list"), {"by": "endpoint"})
    values = ("title", "endpoint", "rows", "workflows")
    counted = [tuple(group[name] for name in values) for group in groups.context["page"].rows]
    assert counted == [
        ("A reverse shell was opened", ":", 2, 1),
        ("A call was blocked", "evil.example:443", 2, 2),
    ]
    links = re.findall(r'href="([?][^"]*endpoint=[^"]+)"', groups.content.decode())
    members = [ann.get(address("list") + link.replace("&amp;", "&")).context["page"].rows for link in links]
    assert [{row.detection_id for row in rows} for rows in members] == [{"Reverse-Shell"}, {"Domain-Blocked"}]
    assert [len(rows) for rows in members] == [2, 2]
    searched = ann.get(address("list"), {"by": "endpoint", "q": "evil", "status": "resolved"})
    assert searched.context["page"].rows == []


def test_a_new_endpoint_is_detected_once_the_baseline_has_had_enough_runs(organization, settings):
    settings.BASELINE_STABLE_RUNS = 2
    for name in ("a", "b"):
        job_run(organization, name)
        observe(name, call("github.com"))
    job_run(organization, "c")
    observe("c", call("github.com"), call("fresh.example"))
    assert [(d.detection_id, d.host) for d in Detection.objects.all()] == [
        ("New-Outbound-Network-Call", "fresh.example")
    ]


def test_an_endpoint_that_was_only_blocked_so_far_is_new_once_it_is_reached(organization, settings):
    settings.BASELINE_STABLE_RUNS = 2
    job_run(organization, "a")
    observe("a", call("github.com"), call("evil.example", status="Dropped"))
    job_run(organization, "b")
    observe("b", call("evil.example"))
    job_run(organization, "c")
    observe("c", call("evil.example"))
    assert [(d.job_run.correlation_id, d.detection_id) for d in Detection.objects.order_by("pk")] == [
        ("a", "Domain-Blocked"),
        ("b", "New-Outbound-Network-Call"),
    ]


def test_while_a_baseline_is_being_created_nothing_is_new(organization):
    for name in ("a", "b"):
        job_run(organization, name)
        observe(name, call(f"{name}.example"))
    assert not Detection.objects.exists()


def test_an_agents_reports_are_kept_with_policy_and_lockdown(organization):
    job_run(organization, policy_id=7, policy_name="arc", policy_version=2)
    answer = report(
        "a",
        {"id": "Reverse-Shell", "detection": "bash to 192.0.2.9", "is_lockdown": True, "endpoint": "192.0.2.9:4444"},
        {"id": "Runner-Worker-Memory-Read", "process": "gcore"},
        {"id": "Our-Own", "timestamp": "1753203994"},
        {"name": "no id"},
        "text",
        {"id": "X", "is_lockdown": "yes"},
    )
    assert (answer["stored"], answer["malformed"]) == (3, 3)
    lockdown = Detection.objects.get(detection_id="Reverse-Shell")
    assert (lockdown.is_lockdown, lockdown.job_terminated, lockdown.policy_name) == (True, True, "arc")
    assert lockdown.endpoint == "192.0.2.9:4444"
    assert report("a", {"id": "Runner-Worker-Memory-Read", "process": "gcore"})["repeated"] == 1


def test_a_rule_suppresses_what_fits_from_now_on_and_what_is_new(organization):
    job_run(organization)
    observe("a", call("cdn.evil.example", status="Dropped"), call("other.example", status="Dropped"))
    rule = rules.draft(
        organization=organization,
        detection_id="Domain-Blocked",
        scope_key="repository:octo-org/hello-world",
        destination="*.evil.example:443",
        process="",
        reason="known",
    )
    assert [detection.host for detection in rules.preview(rule)] == ["cdn.evil.example"]
    rules.create(rule=rule, by=ANN)
    job_run(organization, "b")
    observe("b", call("img.evil.example", status="Dropped"))
    suppressed = Detection.objects.filter(status="suppressed").order_by("pk")
    assert [detection.host for detection in suppressed] == ["cdn.evil.example", "img.evil.example"]
    rules.remove(rule=rule, by=ANN)
    assert not Detection.objects.filter(status="suppressed").exists()
    assert list(AccountEvent.objects.order_by("pk").values_list("kind", flat=True)) == [
        "suppression rule added",
        "suppression rule removed",
    ]


@pytest.mark.parametrize(
    ("field", "value", "fits"),
    [
        ("scope_key", "repository:octo-org/other", False),
        ("scope_key", "workflow:octo-org/hello-world/ci.yml", True),
        ("scope_key", "workflow:octo-org/hello-world/cd.yml", False),
        ("scope_key", "organization:octo-org", True),
        ("scope_key", "cluster:octo-org/k8s", False),
        ("destination", "evil.example", True),
        ("destination", "EVIL.example:443", True),
        ("destination", "evil.example:80", False),
        ("destination", "[e]vil.example", False),
        ("destination", "evil.exampl?", False),
        ("process", "curl", True),
        ("process", "wget", False),
        ("detection_id", "Reverse-Shell", False),
    ],
)
def test_what_a_rule_fits(organization, field, value, fits):
    job_run(organization)
    observe("a", call("evil.example", status="Dropped", tool={"name": "curl", "sha256": "", "parent": None}))
    fields = {"detection_id": "", "scope_key": "", "destination": "", "process": "", field: value}
    rule = rules.draft(organization=organization, reason="known", **fields)
    assert bool(rules.preview(rule)) == fits


def test_a_lockdown_is_never_suppressed(organization):
    job_run(organization)
    rule = rules.draft(
        organization=organization, detection_id="Reverse-Shell", scope_key="", destination="", process="", reason="x"
    )
    rules.create(rule=rule, by=ANN)
    report("a", {"id": "Reverse-Shell", "is_lockdown": True}, {"id": "Reverse-Shell"})
    assert [detection.status for detection in Detection.objects.order_by("pk")] == ["new", "suppressed"]


def test_the_pages_list_resolve_and_suppress(organization, ann):
    job_run(organization)
    observe("a", call("evil.example", status="Dropped"))
    report("a", {"id": "Reverse-Shell", "is_lockdown": True, "detection": "<script>"})
    page = ann.get(address("list")).content.decode()
    assert "evil.example:443" in page
    assert "Job terminated" in page
    found = Detection.objects.get(detection_id="Domain-Blocked")
    shown = ann.get(address("detection", found.pk)).content.decode()
    assert "/suppression-rules/new/?detection_id=Domain-Blocked" in shown
    ann.post(address("change-status", found.pk), {"status": "resolved"})
    found.refresh_from_db()
    assert (found.status, found.changed_by) == ("resolved", "ann")
    assert "evil.example" not in ann.get(address("list")).content.decode()
    assert "evil.example" in ann.get(address("list"), {"status": "resolved"}).content.decode()
    ann.post(address("change-status", found.pk), {"status": "suppressed"})
    found.refresh_from_db()
    assert found.status == "resolved"


def test_a_rule_is_previewed_then_saved_by_the_page(organization, ann):
    job_run(organization)
    observe("a", call("evil.example", status="Dropped"))
    form = {"destination": "evil.example", "reason": "known", "action": "preview"}
    assert "1 past detection would be suppressed" in ann.post(address("new-rule"), form).content.decode()
    assert not SuppressionRule.objects.exists()
    ann.post(address("new-rule"), {**form, "action": "save"})
    assert Detection.objects.get().status == "suppressed"
    for wrong in (
        {"reason": "all"},
        {"destination": "*", "reason": "all"},
        {"scope_key": "nonsense", "reason": "x"},
        {"process": "x"},
    ):
        assert ann.post(address("new-rule"), {**wrong, "action": "save"}).status_code == 422
    foreign = {"scope_key": "organization:other", "reason": "x", "action": "save"}
    assert ann.post(address("new-rule"), foreign).status_code == 422


def test_detections_over_the_api_are_paged(organization, settings):
    settings.GITHUB_URL = "https://github.example"
    job_run(organization)
    for number in range(5):
        observe("a", call(f"h{number}.example", status="Dropped"))
    headers = {"authorization": f"Bearer {factories.management_key(organization)}"}
    target = "/v1/github/octo-org/actions/detections?detection_id=Domain-Blocked&status=new&limit=3"
    first = ask("GET", target, headers).json()["data"]
    assert (first["count"], first["has_more"]) == (3, True)
    event = first["detections"][0]
    assert (event["id"], event["owner"], event["repo"]) == ("Domain-Blocked", "octo-org", "hello-world")
    assert event["workflow_path"] == ".github/workflows/ci.yml"
    assert event["html_url"] == "https://github.example/octo-org/hello-world/actions/runs/a"
    assert event["timestamp"].isdecimal()
    second = ask("GET", f"{target}&next_token={first['next_token']}", headers).json()["data"]
    assert (second["count"], second["has_more"], second["next_token"]) == (2, False, "")
    assert ask("GET", target.replace("limit=3", "limit=x"), headers).status == 422
    assert ask("GET", target, {}).status == 401
    json.dumps(event)
    assert timezone.now() - Detection.objects.first().at < timedelta(minutes=1)


def test_integrations_are_told_of_what_is_new_and_not_of_what_is_suppressed(organization):
    integration = Integration.objects.create(
        organization=organization,
        kind="webhook",
        name="siem",
        events=["blocked_call", "lockdown", "detection"],
        created_at=timezone.now(),
        created_by="ann",
    )
    rule = rules.draft(
        organization=organization, detection_id="", scope_key="", destination="known.example", process="", reason="x"
    )
    rules.create(rule=rule, by=ANN)
    job_run(organization)
    observe("a", call("evil.example", status="Dropped"), call("known.example", status="Dropped"))
    observe("a", call("evil.example", status="Dropped", n=2))
    report("a", {"id": "Reverse-Shell", "is_lockdown": True}, {"id": "Our-Own"})
    told = OutboxMessage.objects.filter(integration=integration).order_by("pk")
    assert [message.kind for message in told] == ["blocked_call", "lockdown", "detection"]
    assert json.loads(told[0].payload)["endpoint"] == "evil.example:443"
    assert json.loads(told[1].payload)["is_lockdown"] is True


def test_a_jobs_page_is_given_its_detections(organization, ann):
    run = job_run(organization)
    other = job_run(organization, "b")
    report("a", {"id": "Reverse-Shell", "is_lockdown": True})
    card = ann.get(address("of-run", run.pk), headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in card
    assert "Job terminated" in card
    assert ann.get(address("of-run", other.pk), headers={"HX-Request": "true"}).content.decode().strip() == ""
    assert "Nothing was detected" in ann.get(address("of-run", other.pk)).content.decode()
    assert address("of-run", run.pk) in ann.get(reverse("runs:run", args=["octo-org", run.pk])).content.decode()


def test_a_detection_on_an_exempted_job_says_so(organization, ann):
    wide = factories.policy(
        organization, "arc", text="lockdown-mode:\n  enabled: true\n  detections: [Reverse-Shell]\n"
    )
    narrow = factories.policy(organization, "exempt", text="lockdown-mode:\n  enabled: false\n")
    for policy, scope in (
        (wide, Scope.for_organization("octo-org")),
        (narrow, Scope.for_repository("octo-org", "hello-world")),
    ):
        attachments.ModifyAttachments(policy=policy, add=[scope]).apply(by=ANN)
    job_run(organization, policy_id=narrow.pk, policy_name="exempt", policy_version=1)
    report("a", {"id": "Reverse-Shell"})
    page = ann.get(address("detection", Detection.objects.get().pk)).content.decode()
    assert "Exemption" in page
    assert "arc" in page


def many(run, number, **values):
    said = {"detection_id": "Domain-Blocked", "host": "evil.example", "port": 443, "at": timezone.now(), **values}
    Detection.objects.bulk_create(
        Detection(organization=run.organization, job_run=run, digest=f"{said['host']} {n}", **said)
        for n in range(number)
    )


def test_a_rule_suppresses_all_that_fits_however_much_came_after(organization):
    run = job_run(organization)
    many(run, 30, host="Old.Known.example")
    many(run, 2500)
    rule = rules.draft(
        organization=organization,
        detection_id="",
        scope_key="",
        destination="*.known.example:443",
        process="",
        reason="x",
    )
    assert len(rules.preview(rule)) == 30
    rules.create(rule=rule, by=ANN)
    assert Detection.objects.filter(status="suppressed", rule=rule).count() == 30
    wide = rules.draft(
        organization=organization, detection_id="", scope_key="", destination="*.example", process="", reason="x"
    )
    assert len(rules.preview(wide)) == rules.PREVIEWED
    rules.create(rule=wide, by=ANN)
    assert not Detection.objects.filter(status="new").exists()


@pytest.mark.parametrize(
    ("pattern", "host", "port", "fits"),
    [
        ("*443", "evil.example", 443, True),
        ("*443", "evil.example", 80, False),
        ("*:443", "evil.example", 443, True),
        ("ev*le:4*", "evil.example", 443, True),
        ("2001:db8::1", "2001:db8::1", 443, True),
        ("2001:DB8::*:443", "2001:db8::1", 443, True),
        ("*evil*", "not-evil.example", 443, True),
        ("äpfel.ex*", "Äpfel.Example", 443, True),
        ("*evil*", "good.example", 443, False),
    ],
)
def test_the_preview_finds_what_the_rule_fits(organization, pattern, host, port, fits):
    many(job_run(organization), 1, host=host, port=port)
    rule = rules.draft(
        organization=organization, detection_id="", scope_key="", destination=pattern, process="", reason="x"
    )
    assert bool(rules.preview(rule)) == fits


def test_very_many_detections_are_paged_by_keyset_and_narrowed_by_id(organization, ann):
    run = job_run(organization)
    many(run, 120)
    many(run, 3, detection_id="Reverse-Shell", host="shell.example")
    seen, query = [], ""
    while True:
        page = ann.get(address("list") + query)
        seen += [detection.pk for detection in page.context["page"].rows]
        query = page.context["next_query"]
        if not query:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 123
    assert page.context["ids"] == ["Domain-Blocked", "Reverse-Shell"]
    narrowed = ann.get(address("list"), {"id": "Reverse-Shell"})
    assert len(narrowed.context["page"].rows) == 3


def test_ticked_detections_are_resolved_together_and_each_leaves_an_event(organization, ann):
    run = job_run(organization)
    many(run, 3)
    foreign = job_run(factories.organization("other"))
    many(foreign, 1)
    theirs = foreign.detections.get()
    first, second, third = run.detections.order_by("pk")
    form = {
        "detection": [first.pk, second.pk, theirs.pk, "x", "9" * 30],
        "status": "resolved",
        "shown": "new",
        "q": "e",
    }
    answer = ann.post(address("change-chosen"), form, follow=True)
    assert answer.redirect_chain[-1][0] == address("list") + "?q=e&status=new"
    assert "2 detections are now resolved." in answer.content.decode()
    assert set(Detection.objects.filter(status="resolved")) == {first, second}
    told = AccountEvent.objects.filter(kind="detection resolved").order_by("pk")
    assert [(event.actor, event.subject) for event in told] == [("ann", "Domain-Blocked evil.example:443")] * 2
    again = ann.post(address("change-chosen"), form, follow=True)
    assert "Nothing changed" in again.content.decode()
    assert "Select at least one" in ann.post(address("change-chosen"), {"status": "new"}, follow=True).content.decode()
    ann.post(address("change-chosen"), {"detection": third.pk, "status": "suppressed"})
    third.refresh_from_db()
    assert third.status == "new"


def test_the_api_refuses_a_status_that_is_none(organization):
    headers = {"authorization": f"Bearer {factories.management_key(organization)}"}
    assert ask("GET", "/v1/github/octo-org/actions/detections?status=open", headers).status == 422
    assert ask("GET", "/v1/github/octo-org/actions/detections?status=suppressed", headers).status == 200


@pytest.mark.parametrize("told", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_moment_that_no_clock_can_show_is_the_time_of_arrival(organization, told):
    job_run(organization)
    now = timezone.now()
    assert report("a", {"id": "Odd", "timestamp": told}, {"id": "Usual", "timestamp": now.isoformat()})["stored"] == 2
    assert abs(Detection.objects.get(detection_id="Odd").at - now) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("evil.example:0443", "evil.example", 443),
        ("evil.example:443000", "evil.example", None),
        ("evil.example:0000449999999999999999999999", "evil.example", None),
        (f"{'a' * 251}.b:443", f"{'a' * 251}.b", 443),
        ("evil.example", "evil.example", None),
        ("evil.example:443(https)", "evil.example", 443),
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.1:443", "192.0.2.1", 443),
        ("443", "443", None),
        # All of it is an address, whatever its last group looks like.
        ("2001:db8::1", "2001:db8::1", None),
        ("*:443", "%2a", 443),
        ("*.example.com", "%2a.example.com", None),
        ("fe80::1:443", "fe80::1:443", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
        ("[2001:db8::1]", "[2001:db8::1]", None),
        ("2001:db8:1:2:3:4:5:6:443", "2001:db8:1:2:3:4:5:6", 443),
        ("[2001:db8::1]:443", "[2001:db8::1]", 443),
        ("fe80::1%eth0:443", "fe80::1%eth0", 443),
    ],
)
def test_the_endpoint_of_a_report_has_a_port_or_none(organization, endpoint, host, port):
    job_run(organization)
    assert report("a", {"id": "Odd", "endpoint": endpoint})["stored"] == 1
    found = Detection.objects.get()
    assert (found.host, found.port) == (host, port)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("module", "step"), [(rules, "first_matching"), (actions, "_event")])
def test_a_rule_that_is_removed_while_it_suppresses_leaves_what_it_fits_new(organization, monkeypatch, module, step):
    job_run(organization)
    draft = rules.draft(
        organization=organization, detection_id="", scope_key="", destination="known.*", process="", reason="x"
    )
    rule = rules.create(rule=draft, by=ANN)
    removed = []

    def remove():
        try:
            rules.remove(rule=rule, by=ANN)
            removed.append(rule.pk)
        finally:
            connection.close()

    remover = threading.Thread(target=remove)
    usual = getattr(module, step)

    def meanwhile(*arguments):
        result = usual(*arguments)
        if remover.ident is None:
            remover.start()
            # One who waits for this transaction goes on after it.
            remover.join(timeout=1)
        return result

    monkeypatch.setattr(module, step, meanwhile)
    observe("a", call("known.example", status="Dropped"), call("other.example", status="Dropped"))
    remover.join(timeout=20)
    assert removed == [rule.pk]
    assert [(one.host, one.status, one.rule_id) for one in Detection.objects.order_by("host")] == [
        ("known.example", "new", None),
        ("other.example", "new", None),
    ]


class Meanwhile:
    """Does something in another thread: `wait` begins it, and gives it a second, which is too short for what waits for
    the transaction of who calls; `end` waits until it is done."""

    def __init__(self, work):
        self.done = False
        self._work = work
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self._work()
            self.done = True
        finally:
            connection.close()

    def wait(self):
        if self._thread.ident is None:
            self._thread.start()
            self._thread.join(timeout=1)

    def end(self):
        self._thread.join(timeout=20)
        assert self.done


def suppressing_known(organization):
    return rules.draft(
        organization=organization, detection_id="", scope_key="", destination="known.*", process="", reason="x"
    )


def pausing(monkeypatch, module, name, pause):
    usual = getattr(module, name)

    def paused(*arguments, **named):
        result = usual(*arguments, **named)
        pause()
        return result

    monkeypatch.setattr(module, name, paused)


def states():
    return [(one.host, one.status) for one in Detection.objects.order_by("host")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("module", "step"), [(rules, "first_matching"), (actions, "_event")])
def test_a_detection_that_is_stored_while_a_rule_is_added_is_suppressed(organization, monkeypatch, module, step):
    job_run(organization)
    adder = Meanwhile(lambda: rules.create(rule=suppressing_known(organization), by=ANN))
    pausing(monkeypatch, module, step, adder.wait)
    observe("a", call("known.example", status="Dropped"), call("other.example", status="Dropped"))
    adder.end()
    assert states() == [("known.example", "suppressed"), ("other.example", "new")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_slow", [False, True], ids=["stored before the rule can be seen", "stored after it"])
def test_a_rule_that_is_added_while_a_detection_is_stored_suppresses_it(organization, monkeypatch, is_slow):
    job_run(organization)
    go_on = threading.Event()
    storing = Meanwhile(lambda: observe("a", call("known.example", status="Dropped"), call("x.example")))
    # PostgreSQL shows the rules without the new one then; on SQLite whoever stores waits for its turn.
    pausing(monkeypatch, rules.AccountEvent.objects, "record", storing.wait)
    if is_slow:
        pausing(monkeypatch, rules, "first_matching", lambda: go_on.wait(timeout=2))
    rules.create(rule=suppressing_known(organization), by=ANN)
    go_on.set()
    storing.end()
    assert states() == [("known.example", "suppressed")]


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_is_removed_as_soon_as_it_is_added_suppresses_nothing(organization, monkeypatch):
    job_run(organization)
    rule = suppressing_known(organization)

    def remove_and_store():
        rules.remove(rule=rule, by=ANN)
        observe("a", call("known.example", status="Dropped"))

    # Once the rule can be seen, and before what was stored beside it is looked for.
    pausing(monkeypatch, rules, "_wait_for_storing", lambda: rule.pk and transaction.on_commit(remove_and_store))
    rules.create(rule=rule, by=ANN)
    assert states() == [("known.example", "new")]


@pytest.mark.production
@pytest.mark.django_db(transaction=True)
def test_a_change_of_attachments_does_not_hold_up_the_detections_of_jobs(organization):
    run, stored = job_run(organization), threading.Event()

    def store():
        observe("a", call("evil.example", status="Dropped"))
        stored.set()

    with transaction.atomic():
        compiler.change_attachments(organization.pk)
        with in_thread(store):
            assert stored.wait(10)
    assert run.detections.count() == 1
