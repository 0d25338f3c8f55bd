"""Where a change of the database past Policy Store shows: probes, metrics, pages and the worker's log."""

import json

import pytest
from django.urls import reverse

from policystore.accounts.models import SYSTEM
from policystore.integrity.comparing import Watch
from policystore.operations import worker
from policystore.policies.core import attachments
from policystore.policies.models import Policy
from policystore.policy_language.scopes import Scope
from tests import factories
from tests.runners.asking import through_django

pytestmark = pytest.mark.django_db
SENTENCE = "octo-org: policy baseline: The column “reply” of the policy differs from the history."


@pytest.fixture
def policy():
    return factories.policy(factories.organization())


def fetch_policy(key):
    path = "/v1/github/octo-org/app/actions/policies/workflow-policy?workflow=ci.yml&run_id=1&correlationId=x"
    return through_django("GET", path, {"authorization": f"vm-api-key {key}"})


def tamper(policy):
    Policy.objects.filter(pk=policy.pk).update(reply="{}")
    look()


def look():
    watch = Watch()
    while not watch():
        pass


def check_of(client):
    answer = client.get("/readyz")
    [check] = [check for check in json.loads(answer.content)["checks"] if check["name"] == "tampering"]
    return answer.status_code, check["ok"], check["message"]


@pytest.mark.django_db(transaction=True)
def test_a_ready_store_stays_ready_and_names_nothing_to_strangers(client, policy):
    [life] = [job for job in worker.jobs() if job.name == "record a heartbeat"]
    life.work()
    tamper(policy)
    status, ok, message = check_of(client)
    assert (status, ok) == (200, True)
    assert message == "The database differs from the history in 1 place; `manage.py verify_history` names it."


@pytest.mark.django_db(transaction=True)
def test_metrics_count_what_was_found(client, policy, settings):
    settings.METRICS_TOKEN = "t" * 32
    tamper(policy)
    scraped = client.get("/metrics", headers={"authorization": f"Bearer {settings.METRICS_TOKEN}"}).content.decode()
    assert "policystore_integrity_problems 1.0" in scraped


def test_the_worker_logs_each_difference_once(policy, caplog):
    tamper(policy)
    look()
    assert [record.getMessage() for record in caplog.records].count(
        f"The database and the history differ. {SENTENCE}"
    ) == 1


@pytest.mark.parametrize("reply", ["{}", "", "{broken", "[]", '{"allowed_endpoints": 7}'])
def test_the_policys_page_and_the_history_page_say_so(client, policy, reply):
    client.force_login(factories.member(policy.organization))
    Policy.objects.filter(pk=policy.pk).update(reply=reply)
    look()
    for url in (
        reverse("policies:view", args=("octo-org", policy.pk)),
        reverse("policies:organization_history", args=("octo-org",)),
    ):
        answer = client.get(url)
        assert answer.status_code == 200
        assert SENTENCE in answer.content.decode()


def test_saving_the_policy_on_its_page_puts_the_reply_right(client, policy):
    client.force_login(factories.member(policy.organization))
    tamper(policy)
    sent = {"name": policy.name, "description": "", "text": policy.text, "version": policy.version}
    assert client.post(reverse("policies:edit", args=("octo-org", policy.pk)), sent).status_code == 302
    look()
    page = client.get(reverse("policies:view", args=("octo-org", policy.pk))).content.decode()
    assert SENTENCE not in page
    assert Policy.objects.get(pk=policy.pk).listed_endpoints == ["github.com:443", "api.github.com:443"]


UNSERVABLE = ["{}", "", "null", "{broken", '{"policy_name":"","egress_policy":"audit","allowed_endpoints":[]}']


@pytest.mark.parametrize("reply", UNSERVABLE)
def test_a_reply_that_was_never_compiled_is_not_served(policy, reply):
    """It would turn blocking off without a word; after a 503 the runner tries again, and the job says what happened."""
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    key = factories.api_key(policy.organization)
    Policy.objects.filter(pk=policy.pk).update(reply=reply)
    answer = fetch_policy(key)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("reply", UNSERVABLE)
def test_a_job_that_was_answered_before_keeps_its_policy(policy, reply):
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    key = factories.api_key(policy.organization)
    before = fetch_policy(key)
    Policy.objects.filter(pk=policy.pk).update(reply=reply)
    assert (fetch_policy(key).status, fetch_policy(key).body) == (200, before.body)


@pytest.mark.parametrize("open_exceptions", ["broken", "[]", "{}", '[["2031-01-01","x.example:443"]]', '[["never",1]]'])
def test_exceptions_that_cannot_be_read_are_not_served(policy, open_exceptions):
    attachments.ModifyAttachments(policy=policy, add=[Scope.for_organization("octo-org")]).apply(by=SYSTEM)
    Policy.objects.filter(pk=policy.pk).update(open_exceptions=open_exceptions)
    answer = fetch_policy(factories.api_key(policy.organization))
    assert (answer.status, answer.body.decode()) == (200, policy.reply)
