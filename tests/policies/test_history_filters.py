"""The history narrowed by person, policy, scope, event and time, on its pages and as CSV and JSON Lines."""

import csv
import hashlib
import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from policystore.accounts import members
from policystore.accounts.models import Actor, Role
from policystore.audit_log import export, hash_chain, history
from policystore.audit_log.models import HistoryEvent
from policystore.policies.core import actions as policies
from policystore.policies.core import attachments
from policystore.policy_language.scopes import Scope
from tests import factories

pytestmark = pytest.mark.django_db

MARIA, JONAS = Actor("maria"), Actor("jonas")
DAY = timedelta(days=1)
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def ann(organization):
    client = Client()
    person = factories.member(organization, Role.AUDITOR, "ann")
    client.force_login(person, backend="policystore.accounts.access.RoleBackend")
    return client


@pytest.fixture
def ci(organization):
    """A day each: ci created, described, renamed to release and attached; docs created and attached elsewhere."""
    text = "egress-policy: audit\n"
    ci = policies.create(organization=organization, name="ci", text=text, by=MARIA, at=START)
    ci = updated(ci, JONAS, START + DAY, description="=1+1")
    ci = updated(ci, MARIA, START + 2 * DAY, name="release")
    workflow = Scope.for_workflow("octo-org", "hello-world", "ci.yml")
    attachments.ModifyAttachments(policy=ci, add=[workflow]).apply(by=MARIA, at=START + 3 * DAY)
    docs = policies.create(organization=organization, name="docs", text=text, by=JONAS, at=START + 4 * DAY)
    umlaut = Scope.for_workflow("octo-org", "docs", "bücher.yml")
    attachments.ModifyAttachments(policy=docs, add=[umlaut]).apply(by=JONAS, at=START + 5 * DAY)
    return ci


def updated(policy, by, at, **values):
    now = {"name": policy.name, "description": policy.description, "text": policy.text, **values}
    return policies.UpdatePolicy(policy=policy, expected_version=policy.version, **now).apply(by=by, at=at)


def address(name, *arguments):
    return reverse(f"policies:{name}", args=["octo-org", *arguments])


def told(response):
    """The events on a page, as (heading, subject, actor)."""
    assert response.status_code == 200
    page = response.content.decode()
    heads = re.findall(r'<div class="event-head"><h3>(.*?)</h3>(.*?)<span>(.*?)</span>', page, re.S)
    return [(heading, re.sub(r"<[^>]+>", "", subject).strip(), actor) for heading, subject, actor in heads]


def exported(client, query=""):
    """The objects of the export as JSON Lines."""
    response = client.get(f"{address('export_history')}?format=jsonl&{query}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
    return [json.loads(line) for line in response.getvalue().decode().splitlines()]


CI = [
    ("Policy Attached", "release", "maria"),
    ("Policy Updated", "release", "maria"),
    ("Policy Updated", "ci", "jonas"),
    ("Policy Created", "ci", "maria"),
]
DOCS = [("Policy Attached", "docs", "jonas"), ("Policy Created", "docs", "jonas")]
FILTERS = {
    "": [*DOCS, *CI],
    "person=maria": [CI[0], CI[1], CI[3]],
    "person=@Jonas": [*DOCS, CI[2]],
    "person=nobody": [],
    "policy=release": CI,
    "policy=RELEASE": CI,
    "policy=ci": CI,
    "policy=docs": DOCS,
    "policy=nothing": [],
    "scope=hello-world": [CI[0]],
    "scope=octo-org / hello-world / ci.yml": [CI[0]],
    "scope=workflow:octo-org/hello-world/ci.yml": [CI[0]],
    "scope=bücher": [DOCS[0]],
    "scope=octo-org": [DOCS[0], CI[0]],
    "scope=100%25": [],
    "kind=created": [DOCS[1], CI[3]],
    "from=2026-01-05": DOCS,
    "to=2026-01-02": [CI[2], CI[3]],
    "from=2026-01-02&to=2026-01-02": [CI[2]],
    "from=2026-01-02T12:00:01Z&to=2026-01-03T14:00:00%2B02:00": [],
    "from=2026-01-02T12:00:01Z&to=2026-01-03T14:00:01%2B02:00": [CI[1]],
    "person=maria&policy=ci&kind=updated&from=2026-01-01": [CI[1]],
}


@pytest.mark.parametrize("query", FILTERS)
def test_the_history_is_narrowed_alike_on_its_page_and_in_the_export(ann, ci, query):
    assert told(ann.get(f"{address('organization_history')}?{query}")) == FILTERS[query]
    rows = [(row["label"], row["subject_name"], row["actor"]) for row in exported(ann, f"of=history&{query}")]
    assert rows == FILTERS[query][::-1]


def test_the_history_of_a_policy_is_narrowed_too(ann, ci):
    page = ann.get(address("history", ci.pk) + "?person=jonas")
    assert [heading for heading, _, _ in told(page)] == ["Policy Updated"]
    link = re.search(r'href="([^"]*format=jsonl)"', page.content.decode()).group(1).replace("&amp;", "&")
    rows = ann.get(link).getvalue().decode().splitlines()
    assert [json.loads(row)["actor"] for row in rows] == ["jonas"]
    assert 'name="policy"' not in page.content.decode()
    assert len(exported(ann, f"subject_id={ci.pk}")) == 4


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "to=2026-02-30",
        "kind=nonsense",
        "from=2026-01-01T99:00",
        "to=99999-01-01",
        # In UTC a day before the first, and one after the last.
        "from=0001-01-01T00:00:00%2B23:59",
        "to=9999-12-31T23:59:59-23:59",
    ],
)
def test_what_cannot_be_looked_for_says_why(ann, ci, query):
    name = query.partition("=")[0]
    for path in (address("organization_history"), address("history", ci.pk)):
        answer = ann.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert f'id="id_{name}-errors"' in answer.content.decode()
    answer = ann.get(f"{address('export_history')}?{query}")
    assert answer.status_code == 422
    assert answer.content.decode().startswith(f"{name}: ")


def test_the_last_day_there_is_breaks_nothing(ann, ci):
    assert ann.get(address("organization_history") + "?to=9999-12-31").status_code in (200, 422)
    assert len(told(ann.get(address("organization_history") + "?from=0001-01-01"))) == 6


def test_looking_for_nothing_that_is_there_leads_back_to_everything(ann, ci):
    page = ann.get(address("organization_history") + "?person=nobody").content.decode()
    assert "No events match these filters." in page
    assert f'href="{address("organization_history")}">Show all' in page


def test_a_narrowed_history_stays_so_on_its_next_page(ann, organization, ci):
    for number in range(30):
        policies.create(organization=organization, name=f"p-{number}", text="egress-policy: audit\n", by=MARIA)
    page = ann.get(address("organization_history") + "?person=maria&kind=created")
    older = re.search(r'href="(\?[^"]*before=\d+)"', page.content.decode()).group(1).replace("&amp;", "&")
    assert "person=maria" in older
    rest = told(ann.get(address("organization_history") + older))
    assert len(told(page)) + len(rest) == 31
    assert rest[-1] == CI[3]
    assert {actor for _, _, actor in rest} == {"maria"}


def test_every_filter_asks_as_many_queries_for_many_events_as_for_few(
    ann, organization, ci, django_assert_max_num_queries
):
    def asked():
        counts = []
        for query in FILTERS:
            with django_assert_max_num_queries(30) as counted:
                ann.get(f"{address('organization_history')}?{query}")
            counts.append(len(counted))
        return counts

    few = asked()
    for number in range(60):
        by, name = (MARIA, "ci")[:2] if number % 2 else (JONAS, "release")
        values = {"scopes_added": [f"repository:octo-org/hello-world-{number}"]}
        history.record(
            "attached", organization=organization, subject=("policy", number + 9, name), by=by, at=START, **values
        )
    assert asked() == few


# Keys, members and settings


@pytest.fixture
def accounts(organization):
    members.add(organization=organization, username="bea", role="auditor", by=MARIA)
    factories.api_key(organization)


def test_events_of_keys_and_members_have_a_page(ann, accounts):
    page = ann.get(address("account_history")).content.decode()
    words = " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<tbody>") :]).split())
    assert "Key created GitHub-Hosted and VM runners: Primary" in words
    assert "Member added bea Auditor maria" in words
    assert "Key created" not in ann.get(address("account_history") + "?person=maria").content.decode()
    assert ann.get(address("account_history") + "?from=x").status_code == 422
    assert "Key created" in ann.get(address("account_history") + "?before=x").content.decode()
    assert f'href="{address("account_history")}"' in ann.get(address("organization_history")).content.decode()


def test_the_export_has_everything_in_the_order_of_time(ann, ci, accounts):
    rows = exported(ann)
    assert [row["ledger"] for row in rows] == ["history"] * 6 + ["accounts"] * 2
    assert rows[6]["label"] == "Member added"
    assert (rows[6]["subject_name"], rows[6]["reason"], rows[6]["actor"]) == ("bea", "Auditor", "maria")
    assert all(set(row) == set(export.COLUMNS) for row in rows)
    assert [row["ledger"] for row in exported(ann, "of=accounts")] == ["accounts"] * 2
    assert exported(ann, "of=accounts&person=maria&to=2020-01-01") == []
    assert [row["ledger"] for row in exported(ann, "policy=ci")] == ["history"] * 4


# The formats


def test_json_lines_have_all_from_which_a_digest_is_computed(ann, ci):
    """Whoever holds the export can verify the chain without the store."""
    before = ""
    for row in exported(ann, "of=history"):
        names = {field.attname for field in HistoryEvent._meta.concrete_fields} - {"sequence", "digest"}
        values = {name: row[name] for name in names if row[name] not in ("", None, [], {})}
        whole = {"after": before, "format": 1, "ledger": "history", "sequence": row["sequence"], "values": values}
        line = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(line.encode()).hexdigest() == row["digest"]
        before = row["digest"]
    assert before


def test_csv_has_a_row_for_each_event_and_no_formula(ann, organization, ci, accounts):
    hash_chain.seal_waiting()
    for start in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"):
        history.record(
            "updated", organization=organization, subject=("policy", 1, "x"), by=MARIA, at=START, reason=start
        )
    response = ann.get(address("export_history"))
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="history-octo-org.csv"'
    rows = list(csv.DictReader(io.StringIO(response.getvalue().decode(), newline="")))
    assert len(rows) == 15
    assert list(rows[0]) == list(export.COLUMNS)
    by_kind = {row["reason"] for row in rows if row["subject_name"] == "x"}
    assert by_kind == {"'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "'\r=1", "'\uff1d1"}
    assert "'=1+1" in [row["description_after"] for row in rows]
    assert not [cell for row in rows for cell in row.values() if cell.startswith(tuple("=+-@\t\r\n"))]
    attached = next(row for row in rows if row["kind"] == "attached")
    assert attached["scopes_added"] == "workflow:octo-org/hello-world/ci.yml"
    assert rows[0]["text_after"] == "egress-policy: audit\n"


def test_an_export_is_read_in_steps(ann, ci, monkeypatch):
    monkeypatch.setattr(export, "STEP", 2)
    response = ann.get(address("export_history"))
    assert response.streaming
    assert len(list(csv.reader(io.StringIO(response.getvalue().decode(), newline="")))) == 7


@pytest.mark.parametrize("query", ["format=xml", "of=nothing", "subject_id=x", "subject_type=policy", "subject_type=x"])
def test_an_export_that_cannot_be_made_says_why(ann, query):
    answer = ann.get(f"{address('export_history')}?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.content.decode()


def test_an_export_has_nothing_of_another_organization(ann, ci):
    theirs = factories.organization("theirs")
    policy = factories.policy(theirs, "ci")
    factories.api_key(theirs)
    rows = exported(ann) + exported(ann, "policy=ci") + exported(ann, f"subject_id={policy.pk}")
    assert {row["owner"] for row in rows} == {"octo-org"}


# The command, for an export that takes longer than a page may


def test_the_command_writes_the_same_to_a_file(ann, ci, accounts, tmp_path):
    target = tmp_path / "history.csv"
    call_command("export_history", "--organization", "Octo-Org", "--output", str(target), "--person", "maria")
    answer = ann.get(address("export_history") + "?person=maria")
    assert target.read_bytes() == answer.getvalue()
    call_command("export_history", "--organization", "octo-org", "--format", "jsonl", "--output", str(target))
    assert target.read_bytes() == ann.get(address("export_history") + "?format=jsonl").getvalue()


def test_the_command_writes_to_standard_output_and_says_what_it_cannot_do(ci, capsys):
    call_command("export_history", "--organization", "octo-org", "--format", "jsonl", "--policy", "docs")
    assert [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()] == ["created", "attached"]
    with pytest.raises(CommandError, match="No organization named nowhere is known"):
        call_command("export_history", "--organization", "nowhere")
    with pytest.raises(CommandError, match="--from: Enter a day such as 2026-01-31"):
        call_command("export_history", "--organization", "octo-org", "--from", "yesterday")


def test_events_are_under_their_day(ann, organization):
    policy = policies.create(organization=organization, name="ci", text="egress-policy: audit\n", by=MARIA, at=START)
    policy = updated(
        policy, MARIA, START + timedelta(hours=1), text="egress-policy: block\nallowed-endpoints: a.io:443\n"
    )
    updated(policy, MARIA, START + DAY, description="later")
    page = ann.get(address("organization_history")).content.decode()
    assert re.findall(r'<li class="timeline-day"><h2>(.*?)</h2>', page) == [
        "Friday, 2 January 2026",
        "Thursday, 1 January 2026",
    ]


def test_a_diff_is_folded_until_it_is_requested(ann, organization):
    policy = policies.create(organization=organization, name="ci", text="egress-policy: audit\n", by=MARIA, at=START)
    updated(policy, MARIA, START + DAY, text="egress-policy: block\nallowed-endpoints: a.io:443\n")
    event = HistoryEvent.objects.latest("pk")
    page = ann.get(address("organization_history")).content.decode()
    assert "2 lines added, 1 removed" in re.sub(r"\s+", " ", page)
    assert '<details class="diff-fold" open>' not in page
    full = ann.get(f"{address('organization_history')}?full={event.pk}").content.decode()
    assert full.count('<details class="diff-fold" open>') == 1
