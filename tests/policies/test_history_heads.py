"""The badge of the history, which the worker keeps, and signed heads that prove the end of it."""

import json
import re
from io import StringIO

import boto3
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from moto import mock_aws

from policystore.accounts.models import AccountEvent, Role
from policystore.audit_log import hash_chain, signed_heads
from policystore.audit_log.models import HistoryCheck, HistoryEvent, HistoryHead
from policystore.operations import worker
from tests import factories

pytestmark = pytest.mark.django_db


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
def events(organization):
    for number in range(5):
        factories.policy(organization, f"p-{number}")
    return list(HistoryEvent.objects.order_by("pk"))


def rows(**values):
    """History events past everything that guards them."""
    return QuerySet(model=HistoryEvent).filter(**values)


def worked(name):
    """One turn of a job of the worker."""
    [job] = [job for job in worker.jobs() if job.name == name]
    job.work()


def shown(client, name="organization_history"):
    page = client.get(reverse(f"policies:{name}", args=["octo-org"])).content.decode()
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<main") :]).split())


def said(command, *arguments):
    out = StringIO()
    try:
        call_command(command, *map(str, arguments), stdout=out)
    except CommandError as error:
        return f"{out.getvalue()}{error}", error.returncode
    return out.getvalue(), 0


def rewritten(events, **values):
    """Give the first event other values, and compute the whole chain and its head anew, as a clever forger would."""
    rows(pk=events[0].pk).update(**values)
    place = hash_chain.BEGINNING
    for event in HistoryEvent.objects.order_by("sequence"):
        place = hash_chain.following(hash_chain.HISTORY, place, event)
        rows(pk=event.pk).update(digest=place.digest)
    HistoryHead.objects.filter(ledger="history").update(digest=place.digest)


# The badge


def test_the_page_tells_how_many_events_were_verified(ann, organization, events):
    assert "Not verified yet" in shown(ann)
    worked("verify the history")
    assert "Verified, 5 events" in shown(ann)
    factories.policy(organization, "next")
    assert "Verified, 5 events" in shown(ann)
    worked("verify the history")
    assert "Verified, 6 events" in shown(ann)


def test_the_page_names_the_event_that_does_not_fit_and_forgets_it_once_it_does(ann, events):
    worked("verify the history")
    rows(sequence=2).update(actor="mallory")
    worked("verify the history")
    assert f"Does not verify: history event 2 (id {events[1].pk}: Policy Created, p-1, by mallory" in shown(ann)
    rows(sequence=2).update(actor=events[1].actor)
    worked("verify the history")
    assert "Verified, 5 events" in shown(ann)


@pytest.mark.parametrize("kept", [0, 3])
def test_the_page_tells_of_a_missing_end(ann, events, kept):
    worked("verify the history")
    rows(sequence__gt=kept).delete()
    worked("verify the history")
    assert "Does not verify: history event" in shown(ann)
    HistoryHead.objects.all().delete()
    worked("verify the history")
    assert "Does not verify: history event" in shown(ann)


def test_a_chain_that_was_computed_anew_is_noticed_by_what_was_verified_before(ann, events):
    worked("verify the history")
    rewritten(events, actor="mallory")
    assert said("verify_history")[1] == 0
    worked("verify the history")
    assert "history event 5 is not the one that was verified before" in shown(ann)


def test_a_long_history_is_verified_a_step_at_a_time(events):
    state = hash_chain.check(hash_chain.HISTORY, "octo-org", new=2, old=2)
    assert (state.sequence, state.swept_sequence, state.swept_at) == (2, 2, None)
    state = hash_chain.check(hash_chain.HISTORY, "octo-org", new=2, old=2)
    assert (state.sequence, state.swept_sequence, state.swept_at) == (4, 4, None)
    state = hash_chain.check(hash_chain.HISTORY, "octo-org", new=2, old=2)
    assert (state.sequence, state.swept_sequence) == (5, 0)
    assert state.swept_at is not None


def test_the_page_of_keys_and_members_has_a_badge_of_its_own(ann, organization):
    factories.api_key(organization)
    hash_chain.seal_waiting()
    worked("verify the history")
    assert "Verified, 1 event of" in shown(ann, "account_history")
    AccountEvent.objects.update(actor="mallory")
    worked("verify the history")
    assert "Does not verify: account event 1" in shown(ann, "account_history")
    assert "Does not verify" not in shown(ann)


def test_the_badge_asks_as_many_queries_for_many_events_as_for_few(ann, organization, events):
    def asked():
        with CaptureQueriesContext(connection) as queries:
            assert "Verified" in shown(ann)
        return len(queries)

    worked("verify the history")
    few = asked()
    for number in range(30):
        factories.policy(organization, f"more-{number}")
    worked("verify the history")
    assert asked() == few


# Signed heads


@pytest.fixture
def heads(events, tmp_path):
    path = tmp_path / "heads.jsonl"
    assert said("sign_history_heads", "--to", path) == ("Signed 1 head.\n", 0)
    return path


def test_a_history_that_grew_since_it_was_signed_verifies(organization, heads):
    factories.policy(organization, "next")
    assert said("verify_history", "--heads", heads)[0].startswith(
        "octo-org: 6 history events verified, 1 signed head among them."
    )
    assert said("sign_history_heads", "--to", heads)[1] == 0
    assert len(heads.read_text().splitlines()) == 2
    assert "2 signed heads among them" in said("verify_history", "--heads", heads)[0]


def test_signed_heads_show_a_tail_that_was_cut_off_with_the_head(events, heads):
    rows(sequence__gt=3).delete()
    HistoryHead.objects.filter(ledger="history").update(sequence=3, digest=events[2].digest)
    HistoryCheck.objects.all().delete()
    # Without the heads only the rows show it, which are ahead of their history.
    assert "missing at the end" not in said("verify_history")[0]
    output, code = said("verify_history", "--heads", heads)
    assert code == 1
    assert "history event 4 and all after it up to 5 are missing at the end; the last one there is 3" in output


def test_signed_heads_show_a_history_of_which_nothing_is_left(events, heads):
    rows().delete()
    HistoryHead.objects.all().delete()
    HistoryCheck.objects.all().delete()
    output, code = said("verify_history", "--heads", heads)
    assert code == 1
    assert "octo-org: history event 1 and all after it up to 5 are missing at the end; there is none" in output


def test_signed_heads_show_a_chain_that_was_computed_anew(events, heads):
    rewritten(events, actor="mallory")
    assert said("verify_history")[1] == 0
    output, code = said("verify_history", "--heads", heads)
    assert code == 1
    assert "history event 5 (id " in output
    assert "is not the one whose digest was signed" in output


@pytest.mark.parametrize(("name", "value"), [("sequence", 4), ("digest", "0" * 64), ("owner", "other"), ("at", "2020")])
def test_a_head_that_was_changed_is_refused(heads, name, value):
    head = json.loads(heads.read_text())
    heads.write_text(json.dumps(head | {name: value}))
    output, code = said("verify_history", "--heads", heads)
    assert code == 1
    assert "line 1 was changed after it was signed" in output


@pytest.mark.parametrize(
    "line", ["x", "[]", "{}", "null", '{"signature": "x"}', '{"signature": "", "format": 1}', "[" * 9000]
)
def test_what_is_no_head_is_refused(heads, line):
    heads.write_text(f"{heads.read_text()}\n{line}\n")
    output, code = said("verify_history", "--heads", heads)
    assert code == 1
    assert "line 3 is not a signed head" in output


def test_heads_of_another_key_count_only_where_it_is_named(heads, settings, tmp_path):
    former = signed_heads.public_key()
    assert said("sign_history_heads", "--public-key") == (f"{former}\n", 0)
    settings.HISTORY_SIGNING_SECRET = "another secret"
    assert signed_heads.public_key() != former
    output, code = said("verify_history", "--heads", heads)
    assert code == 1
    assert f"line 1 is signed by another key, {former}" in output
    assert said("verify_history", "--heads", heads, "--public-key", former)[1] == 0
    assert "cannot be read" in said("verify_history", "--heads", tmp_path / "nothing.jsonl")[0]


def test_what_does_not_verify_is_not_signed(events, heads):
    before = heads.read_text()
    rows(sequence=2).update(actor="mallory")
    output, code = said("sign_history_heads", "--to", heads)
    assert code == 1
    assert "Not signed, because verification failed: octo-org: history event 2" in output
    assert heads.read_text() == before


def test_signing_says_where_it_cannot_write(events, tmp_path):
    output, code = said("sign_history_heads", "--to", tmp_path / "nowhere" / "heads.jsonl")
    assert code == 1
    assert "The heads could not be written to" in output
    assert said("sign_history_heads")[0].startswith("Set a destination with --to FILE")


def test_the_worker_signs_what_is_new_and_verified(organization, events, settings, tmp_path):
    worked("sign heads of the history")
    settings.HISTORY_HEADS_TO = str(tmp_path / "heads.jsonl")
    worked("sign heads of the history")
    assert not (tmp_path / "heads.jsonl").exists()
    worked("verify the history")
    worked("sign heads of the history")
    worked("sign heads of the history")
    [line] = (tmp_path / "heads.jsonl").read_text().splitlines()
    assert (json.loads(line)["sequence"], json.loads(line)["owner"]) == (5, "octo-org")
    factories.policy(organization, "next")
    worked("verify the history")
    worked("sign heads of the history")
    assert len((tmp_path / "heads.jsonl").read_text().splitlines()) == 2
    assert said("verify_history", "--heads", tmp_path / "heads.jsonl")[1] == 0


def test_heads_go_to_a_bucket(events, monkeypatch, tmp_path):
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="heads")
        assert said("sign_history_heads", "--to", "s3://heads/store-1/")[1] == 0
        [found] = s3.list_objects_v2(Bucket="heads")["Contents"]
        assert re.fullmatch(r"store-1/\d{4}/\d\d/\d\d/\d{12}\.jsonl", found["Key"])
        (tmp_path / "one.jsonl").write_bytes(s3.get_object(Bucket="heads", Key=found["Key"])["Body"].read())
        assert said("sign_history_heads", "--to", "s3://absent/store-1")[1] == 1
    assert said("verify_history", "--heads", tmp_path / "one.jsonl")[1] == 0
