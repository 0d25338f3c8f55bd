"""Made-up texts, sent as a browser and as a program would send them: saved or refused with a reason, never a 500."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from django.db import transaction
from hypothesis import strategies as st

from policystore.audit_log.models import HistoryEvent
from policystore.policies.models import Policy
from tests.attack.bad_inputs.asking import GOOD, POLICIES, STORE, world
from tests.attack.hostile_texts import endpoints, texts, words
from tests.attack.test_hostile_yaml import FORM, as_sent, shown_in
from tests.attack.test_language import rounds

pytestmark = pytest.mark.django_db
SHORT, LONG = 25, 1_000


@pytest.fixture
def there():
    return world()


class Nothing(Exception):
    """Takes back what one input has changed."""


def unchanged(put):
    """Each input finds the store as the one before found it."""

    def one(made_up):
        with suppress(Nothing), transaction.atomic():
            put(made_up)
            raise Nothing

    return one


def test_the_page_saves_what_can_be_saved_and_keeps_the_rest(there, full, tell):
    count = Counter()
    edited = f"{STORE}{there.policy.pk}/edit/"

    @unchanged
    def put(text):
        sent = {"name": "draft", "text": text, "version": 1}
        typed, events = urlencode(sent, errors="surrogatepass"), HistoryEvent.objects.count()
        assert there.client.generic("POST", f"{STORE}check/", typed, content_type=FORM).status_code == 200
        for path in (f"{STORE}new/", edited):
            answer = there.client.generic("POST", path, typed.replace("draft", "again"), content_type=FORM)
            count[answer.status_code] += 1
            assert answer.status_code in (302, 409, 422), text
            if answer.status_code != 302:
                assert shown_in(answer.content.decode()) == as_sent(text)
            elif path != edited:
                assert Policy.objects.get(name="again").text == as_sent(text)
        assert HistoryEvent.objects.count() <= events + 2
        count["inputs"] += 1

    rounds(LONG if full else SHORT, count, put, texts)
    tell(f"language on the page: {_told(count)}, no text lost")


documents = st.fixed_dictionaries(
    {},
    optional={
        "owner": st.one_of(st.just("octo-org"), words),
        "policyName": st.one_of(st.just("ci"), words),
        "egress_policy": st.one_of(st.sampled_from(("audit", "block")), words, st.none(), st.integers()),
        "allowed_endpoints": st.one_of(
            st.lists(endpoints, max_size=5), texts, st.none(), st.lists(st.none(), max_size=2)
        ),
        "disable_sudo": st.one_of(st.booleans(), st.none(), words),
        "lockdown": st.one_of(st.none(), st.dictionaries(st.sampled_from(("enabled", "detections", "x")), words)),
    },
)


def test_the_management_api_takes_or_refuses_each(there, full, tell):
    count = Counter()
    bearer = {"authorization": f"Bearer {there.ids['MANAGEMENT']}"}
    runner = {"authorization": f"vm-api-key {there.ids['VM']}"}
    fetched = "/v1/github/octo-org/hello-world/actions/policies/workflow-policy?workflow=ci.yml"

    @unchanged
    def put(made_up):
        whole = {"owner": "octo-org", "policyName": "ci", "egress_policy": "block", "allowed_endpoints": []}
        body = json.dumps({**whole, **made_up})
        answer = there.client.generic("POST", f"{POLICIES}ci", body, content_type="application/json", headers=bearer)
        count[answer.status_code] += 1
        assert answer.status_code in (200, 201, 400, 409, 422), body
        assert answer.status_code < 300 or answer.json()["message"]
        served = there.client.get(fetched, headers=runner)
        assert served.status_code == 200, body
        assert served.json()["egress_policy"] in ("audit", "block")
        assert answer.status_code < 300 or Policy.objects.get(name="ci").text == GOOD
        count["inputs"] += 1

    rounds(LONG if full else SHORT, count, put, documents)
    tell(f"language through /v1: {_told(count)}, a policy fetched after each")


def _told(count):
    answers = {status: number for status, number in count.items() if status != "inputs"}
    return f"{count['inputs']} inputs, answers {dict(sorted(answers.items()))}"
