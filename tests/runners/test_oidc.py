"""The action's `policy:` input: GitHub's tokens, from an issuer that a loopback server plays."""

import base64
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policystore.inventory.models import Organization
from policystore.runners import oidc
from tests import factories
from tests.github_tokens import KEY, OTHER_KEY, token
from tests.runners.asking import ask

pytestmark = pytest.mark.django_db

TARGET = "/v1/github/octo-org/actions/policies/named"


@pytest.fixture
def policy():
    return factories.policy(factories.organization("octo-org"), "named")


def fetch(bearer, target=TARGET):
    return ask("GET", target, {"authorization": f"Bearer {bearer}", "source": "github-actions"})


def test_a_signed_token_gets_the_named_policy_as_runners_read_it(issuer, policy):
    answer = fetch(token(issuer))
    assert answer.status == 200
    assert answer.json() == json.loads(policy.reply)
    assert answer.json()["policy_name"] == answer.json()["policyName"] == "named"


def test_owner_and_name_compare_without_case(issuer, policy):
    bearer = token(issuer, repository_owner="Octo-Org", aud="https://github.com/Octo-Org")
    assert fetch(bearer, "/v1/github/Octo-Org/actions/policies/Named").status == 200


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"exp": 1}, "expired"),
        ({"aud": "https://github.com/other"}, "different audience"),
        ({"iss": "https://token.example"}, "issuer"),
        ({"repository_owner": "other", "aud": "https://github.com/other"}, "another organization"),
        ({"key": OTHER_KEY}, "signature"),
        ({"kid": "unknown"}, "does not publish"),
        ({"key": "a-shared-secret-of-at-least-32-bytes", "algorithm": "HS256"}, "RS256"),
    ],
)
def test_a_token_that_proves_nothing_is_refused(issuer, policy, changed, sentence):
    answer = fetch(token(issuer, **changed))
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")
    assert sentence in answer.json()["message"]


def test_an_account_that_took_over_the_organizations_name_is_refused(issuer, policy):
    Organization.objects.update(github_id=583231)
    assert fetch(token(issuer, repository_owner_id="583231")).status == 200
    answer = fetch(token(issuer, repository_owner_id="999"))
    assert answer.status == 401
    assert "another organization" in answer.json()["message"]


@pytest.mark.parametrize("claim", ["exp", "iat", "aud", "repository_owner"])
def test_every_claim_that_counts_must_be_there(issuer, policy, claim):
    now = int(time.time())
    said = {"iss": issuer.address, "aud": "https://github.com/octo-org", "repository_owner": "octo-org"}
    said |= {"iat": now, "exp": now + 300}
    del said[claim]
    assert fetch(jwt.encode(said, KEY, algorithm="RS256", headers={"kid": "one"})).status == 401


@pytest.mark.parametrize("bearer", ["a.b.c", "..", "x" * 20_000 + "..", "eyJhbGciOiJub25lIn0.e30.", "é.é.é"])
def test_what_is_no_token_is_refused(issuer, policy, bearer):
    assert fetch(bearer.encode().decode("latin-1")).status == 401


def test_a_policy_that_is_not_there_is_404(issuer, policy):
    answer = fetch(token(issuer), "/v1/github/octo-org/actions/policies/absent")
    assert (answer.status, answer.json()["error"]) == (404, "no_policy")


def test_keys_are_remembered_and_unknown_ones_do_not_make_the_store_ask_each_time(issuer, policy):
    assert fetch(token(issuer)).status == 200
    asked = issuer.asked
    for number in range(5):
        assert fetch(token(issuer, kid=f"made-up-{number}")).status == 401
    assert fetch(token(issuer)).status == 200
    assert issuer.asked == asked


def test_a_new_key_of_the_issuer_is_found(issuer, policy, monkeypatch):
    assert fetch(token(issuer)).status == 200
    issuer.published = {"two": OTHER_KEY}
    monkeypatch.setattr(oidc, "PAUSE_BETWEEN_FETCHES_SECONDS", 0)
    assert fetch(token(issuer, key=OTHER_KEY, kid="two")).status == 200
    assert fetch(token(issuer)).status == 401


def test_known_keys_go_on_working_while_the_issuer_is_away(issuer, policy, monkeypatch):
    assert fetch(token(issuer)).status == 200
    issuer.away = True
    monkeypatch.setattr(oidc, "KEYS_ARE_FRESH_SECONDS", 0)
    monkeypatch.setattr(oidc, "PAUSE_BETWEEN_FETCHES_SECONDS", 0)
    assert fetch(token(issuer)).status == 200
    assert fetch(token(issuer, key=OTHER_KEY)).status == 401
    monkeypatch.setattr(oidc, "KEYS_ARE_GOOD_SECONDS", 0)
    assert_undecided(fetch(token(issuer)))


def test_a_valid_token_is_not_refused_while_the_keys_of_its_issuer_cannot_be_fetched(issuer, policy, monkeypatch):
    issuer.away = True
    for _ in range(3):
        assert_undecided(fetch(token(issuer)))
    assert issuer.asked == 1
    monkeypatch.setattr(oidc, "PAUSE_AFTER_FAILURE_SECONDS", 0)
    issuer.away = False
    assert fetch(token(issuer)).status == 200


@pytest.mark.parametrize(
    "changed",
    [{"exp": 1}, {"aud": "https://github.com/other"}, {"iss": "https://token.example"}, {"nbf": 4_000_000_000}],
)
def test_a_token_with_wrong_claims_is_refused_even_while_its_issuer_is_away(issuer, policy, changed):
    issuer.away = True
    assert fetch(token(issuer, **changed)).status == 401
    assert issuer.asked == 0


def test_a_request_does_not_wait_long_for_another_that_fetches_the_keys(issuer, policy, monkeypatch):
    monkeypatch.setattr(oidc, "WAIT_SECONDS", 0.01)
    with oidc._lock:
        assert_undecided(fetch(token(issuer)))
    assert fetch(token(issuer)).status == 200


def assert_undecided(answer):
    assert (answer.status, answer.json()["error"]) == (503, "issuer_unavailable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("openid-configuration", []),
        ("openid-configuration", {"jwks_uri": 5}),
        ("openid-configuration", {"jwks_uri": None}),
        ("openid-configuration", {"jwks_uri": "http://[broken"}),
        ("openid-configuration", {"jwks_uri": "{address}/keys with spaces"}),
        ("openid-configuration", {"jwks_uri": "https://elsewhere.example/keys"}),
        ("keys", []),
        ("keys", None),
        ("keys", {"keys": None}),
        ("keys", {"keys": [None]}),
        ("keys", {"keys": [{"kty": "RSA", "n": 5}]}),
    ],
)
def test_nonsense_from_the_issuer_leaves_the_token_undecided(issuer, policy, monkeypatch, path, document):
    if isinstance(document, dict) and "{address}" in str(document.get("jwks_uri")):
        document = {"jwks_uri": document["jwks_uri"].format(address=issuer.address)}
    proper = issuer.document
    monkeypatch.setattr(issuer, "document", lambda asked: document if asked.endswith(path) else proper(asked))
    for _ in range(2):
        assert_undecided(fetch(token(issuer)))


@pytest.mark.parametrize("kid", [["one"], {"a": 1}, 1, None, "one\0", "../one", "x" * 5000])
def test_a_strange_key_id_is_refused(issuer, policy, kid):
    _, claims, signature = token(issuer).split(".")
    strange = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "kid": kid}).encode()).decode().rstrip("=")
    assert fetch(f"{strange}.{claims}.{signature}").status == 401


def test_the_issuers_public_key_is_no_shared_secret(issuer, policy):
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    now = int(time.time())
    said = {"iss": issuer.address, "aud": "https://github.com/octo-org", "repository_owner": "octo-org"}
    said |= {"iat": now, "exp": now + 300}
    parts = [{"alg": "HS256", "kid": "one", "typ": "JWT"}, said]
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256")).decode().rstrip("=")
    assert fetch(f"{signed}.{mac}").status == 401
    assert fetch(jwt.encode(said, None, algorithm="none", headers={"kid": "one"})).status == 401


def test_a_token_does_not_change_policies(issuer, policy):
    for method in ("POST", "DELETE"):
        assert ask(method, TARGET, {"authorization": f"Bearer {token(issuer)}"}, {}).status == 401
