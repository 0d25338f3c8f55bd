"""The management API, as the Terraform provider and people with curl use it."""

import json

import pytest

from policystore.accounts.models import ApiKey
from policystore.audit_log.models import HistoryEvent
from policystore.policies.models import Attachment, Policy
from tests import factories
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

TARGET = "/v1/github/octo-org/actions/policies/ci"
BODY = {"egress_policy": "block", "allowed_endpoints": ["github.com:443", "api.github.com:443"]}


@pytest.fixture
def organization():
    return factories.organization("octo-org")


@pytest.fixture
def bearer(organization):
    return {"authorization": f"Bearer {factories.management_key(organization, 'terraform')}"}


def test_a_policy_is_created_and_read_back_as_it_was_sent(bearer):
    endpoints = ["GitHub.com", "*.amazonaws.com:443", "api.github.com:443"]
    body = {**BODY, "owner": "octo-org", "policyName": "ci", "allowed_endpoints": endpoints, "disable_sudo": True}
    created = ask("POST", TARGET, bearer, body)
    assert created.status == 200
    assert created.json()["allowed_endpoints"] == endpoints
    assert created.json()["disable_sudo"] is True
    assert ask("GET", TARGET, bearer).json() == created.json()


def test_what_a_person_wrote_survives_an_update(organization, bearer):
    text = (
        "# ours\negress-policy: audit # soon block\ndisable-sudo-and-containers: true\n"
        "allowed-endpoints: >\n  github.com:443 # clone\n  ghcr.io:443\n"
    )
    factories.policy(organization, "ci", text=text)
    body = {**BODY, "allowed_endpoints": ["github.com:443", "quay.io:443"], "disable_sudo": False}
    assert ask("POST", TARGET, bearer, body).status == 200
    policy = Policy.objects.get(name="ci")
    assert policy.text == text.replace("audit #", "block #").replace("  ghcr.io:443\n", "  quay.io:443\n")
    event = HistoryEvent.objects.latest("pk")
    assert (event.kind, event.actor, event.actor_kind) == ("updated", "terraform", "api_key")
    assert (event.text_before, event.text_after) == (text, policy.text)


def test_the_endpoint_sets_of_a_policy_stay_and_are_told_apart_from_its_own_endpoints(organization, bearer):
    factories.endpoint_set(organization, "npm", "registry.octo1.org\n")
    text = "egress-policy: block\nallowed-endpoints: github.com\nendpoint-sets: npm # packages\n"
    factories.policy(organization, "ci", text=text)
    assert ask("GET", TARGET, bearer).json()["allowed_endpoints"] == ["github.com"]
    answer = ask("POST", TARGET, bearer, {**BODY, "allowed_endpoints": ["quay.io:443"]})
    assert answer.json()["allowed_endpoints"] == ["quay.io:443"]
    policy = Policy.objects.get(name="ci")
    assert "endpoint-sets: npm # packages\n" in policy.text
    assert json.loads(policy.reply)["allowed_endpoints"] == ["quay.io:443", "registry.octo1.org:443"]


def test_a_policy_in_braces_is_written_anew_with_all_that_it_said(organization, bearer):
    factories.endpoint_set(organization, "npm", "registry.octo1.org\n")
    listed = "allowed-endpoints: [github.com, 'ghcr.io:443'], endpoint-sets: [npm]"
    text = f"{{egress-policy: audit, disable-sudo-and-containers: true, {listed}}}\n"
    factories.policy(organization, "ci", text=text)
    body = {**BODY, "allowed_endpoints": ["github.com", "ghcr.io:443"]}
    assert ask("POST", TARGET, bearer, body).status == 200
    assert Policy.objects.get().text == (
        "egress-policy: block\ndisable-sudo-and-containers: true\nallowed-endpoints: >\n  github.com\n  ghcr.io:443\n"
        "endpoint-sets: >\n  npm\n"
    )
    assert HistoryEvent.objects.latest("pk").text_before == text


def test_a_value_that_makes_the_text_too_large_is_refused(organization, bearer):
    factories.policy(organization, "ci")
    answer = ask("POST", TARGET, bearer, {**BODY, "egress_policy": "x" * 100_000})
    assert (answer.status, answer.json()["error"]) == (422, "invalid_policy")
    assert answer.json()["problems"][0]["code"] == "too-large"


def test_an_update_never_detaches_and_the_same_again_leaves_no_event(organization, bearer):
    ask("POST", TARGET, bearer, BODY)
    ask("POST", f"{TARGET}/attach", bearer, {"org": {"apply_to_org": True}})
    events = HistoryEvent.objects.count()
    assert ask("POST", TARGET, bearer, BODY).json()["attachments"]["org"]["apply_to_org"] is True
    assert HistoryEvent.objects.count() == events
    assert ask("POST", TARGET, bearer, {**BODY, "egress_policy": "audit"}).status == 200
    assert Attachment.objects.count() == 1


def test_lists_come_back_in_their_order_and_names_in_their_case(bearer):
    ask("POST", TARGET, bearer, BODY)
    repos = [
        {"name": "Zebra", "apply_to_repo": False, "workflows": ["z.yml", "a.yml"]},
        {"name": "alpha", "apply_to_repo": True},
    ]
    body = {"org": {"name": "octo-org", "apply_to_org": False, "repos": repos}, "clusters": ["z", "a"]}
    answer = ask("POST", f"{TARGET}/attach", bearer, body)
    assert answer.json()["attachments"] == body


def test_keys_of_other_organizations_and_kinds_and_no_key_are_refused(organization, bearer):
    ask("POST", TARGET, bearer, BODY)
    foreign = factories.management_key(factories.organization("other"), "theirs")
    runner = factories.api_key(organization)
    table = [
        ({}, 401),
        ({"authorization": "Bearer nonsense"}, 401),
        ({"authorization": f"vm-api-key {runner}"}, 401),
        ({"authorization": f"Bearer {runner}"}, 403),
        ({"authorization": f"Bearer {foreign}"}, 403),
    ]
    for headers, status in table:
        for method, target in (("GET", TARGET), ("POST", TARGET), ("DELETE", TARGET), ("POST", f"{TARGET}/attach")):
            answer = ask(method, target, headers, {})
            assert (answer.status, set(answer.json())) == (status, {"error", "message"}), (headers, method)


def test_a_revoked_key_is_refused_and_use_is_noted(organization, bearer):
    assert ask("GET", TARGET, bearer).status == 404
    key = ApiKey.objects.get()
    assert key.last_used_at is not None
    ApiKey.objects.update(revoked_at=key.created_at)
    assert ask("GET", TARGET, bearer).status == 401


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b'{"a":NaN}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "too_complex"),
        (b" " * (1024 * 1024 + 1), 413, "body_too_large"),
        ({}, 422, "invalid_body"),
        ({**BODY, "egress_policy": "Block"}, 422, "invalid_policy"),
        ({**BODY, "egress_policy": None}, 422, "invalid_body"),
        ({**BODY, "allowed_endpoints": "github.com"}, 422, "invalid_body"),
        ({**BODY, "allowed_endpoints": ["a b"]}, 422, "invalid_body"),
        ({**BODY, "allowed_endpoints": ["# no"]}, 422, "invalid_body"),
        ({**BODY, "allowed_endpoints": ["https://github.com/x"]}, 422, "invalid_policy"),
        ({**BODY, "allowed_endpoints": ["a\u0000b:443"]}, 422, "invalid_body"),
        ({**BODY, "disable_sudo": "yes"}, 422, "invalid_body"),
        ({**BODY, "lockdown": True}, 422, "invalid_body"),
        ({**BODY, "lockdown": {"enabled": True, "detections": ["Nonsense"]}}, 422, "invalid_policy"),
        ({**BODY, "policyName": "another"}, 422, "invalid_body"),
    ],
)
def test_a_bad_body_is_refused_with_what_is_wrong(bearer, body, status, code):
    answer = ask("POST", TARGET, bearer, body)
    assert (answer.status, answer.json()["error"]) == (status, code)
    assert not Policy.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"org": []},
        {"org": {"name": "other", "apply_to_org": True}},
        {"org": {"repos": ["x"]}},
        {"org": {"repos": [{"name": "x"}]}},
        {"org": {"repos": [{"name": "x/y", "apply_to_repo": True}]}},
        {"org": {"repos": [{"name": "x", "workflows": ["ci"]}]}},
        {"clusters": [""]},
        {"clusters": [1]},
    ],
)
def test_a_bad_attachment_is_refused(bearer, body):
    ask("POST", TARGET, bearer, BODY)
    answer = ask("POST", f"{TARGET}/attach", bearer, body)
    assert (answer.status, answer.json()["error"]) == (422, "invalid_body")
    assert not Attachment.objects.exists()


def test_a_policy_is_deleted_with_its_attachments_and_its_history_stays(bearer):
    ask("POST", TARGET, bearer, BODY)
    ask("POST", f"{TARGET}/attach", bearer, {"clusters": ["a"]})
    assert ask("DELETE", TARGET, bearer).status == 204
    assert ask("DELETE", TARGET, bearer).status == 404
    assert ask("POST", f"{TARGET}/attach", bearer, {"clusters": ["a"]}).status == 404
    assert ask("DELETE", f"{TARGET}/attach", bearer).status == 404
    assert HistoryEvent.objects.filter(subject_name="ci").latest("pk").kind == "deleted"


def test_a_name_that_cannot_be_one_is_refused(bearer):
    for name in ("workflow-policy", "-x", "a%2Fb", "%00"):
        answer = ask("POST", f"/v1/github/octo-org/actions/policies/{name}", bearer, BODY)
        assert answer.status in (404, 405, 422), name
    assert not Policy.objects.exists()


@pytest.mark.parametrize(
    "target", [f"{TARGET}/", "/v1/", "/v1/github/octo-org/hello-world/actions/subscription/", "/v1/x"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nothing_redirects_for_a_slash(bearer, method, target):
    answer = ask(method, target, bearer, BODY)
    assert (answer.status, answer.json()["error"]) == (404, "unknown_route")


def test_a_wrong_method_is_told_the_right_ones(bearer):
    answer = ask("PUT", TARGET, bearer, BODY)
    assert (answer.status, answer.json()["error"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST, DELETE, HEAD"


def test_a_policy_whose_text_has_errors_by_now_is_told_by_what_runners_get_and_can_be_written_anew(
    organization, bearer
):
    factories.endpoint_set(organization)
    text = "egress-policy: block\nallowed-endpoints: github.com\ndisable-sudo: true\nendpoint-sets: npm\n"
    policy = factories.policy(organization, "ci", text=text)
    Policy.objects.filter(pk=policy.pk).update(text=f"{text}no-key: of ours\n")
    served = ["github.com:443", "registry.octo1.org:443", "registry.yarnpkg.com:443"]
    told = ask("GET", TARGET, bearer)
    assert (told.status, told.json()["allowed_endpoints"], told.json()["disable_sudo"]) == (200, served, True)
    assert ask("POST", f"{TARGET}/attach", bearer, {"clusters": ["dev"]}).status == 200
    assert ask("POST", TARGET, bearer, {**BODY, "allowed_endpoints": ["ghcr.io:443"]}).status == 200
    policy.refresh_from_db()
    assert policy.listed_endpoints == ["ghcr.io:443", *served[1:]]
    assert ask("GET", TARGET, bearer).json()["disable_sudo"] is True
